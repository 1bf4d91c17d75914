package http2

import (
	"testing"
	"time"
)

// parkedServer returns the client's end of a parked connection, its ServerConn,
// and a channel that receives calls of Wake.
func parkedServer(t *testing.T, o Options) (*raw, *ServerConn, chan bool) {
	t.Helper()
	mine, theirs := pair(t)
	wakes := make(chan bool, 100)
	o.Wake = func() { wakes <- true }
	c := NewServerConn(theirs, nil, o)
	client := rawClient(t, mine)
	client.headers(1, true, simple...)
	if err := c.Serve(echo); err != ErrParked {
		t.Fatalf("%v, want ErrParked", err)
	}
	t.Cleanup(func() {
		c.Close()
		_ = c.Serve(echo)
	})
	if got := client.outcome(1); got != "200 /  yes" {
		t.Fatal(got)
	}
	return client, c, wakes
}

func TestAParkedConnectionIsServedAgain(t *testing.T) {
	t.Parallel()
	client, c, wakes := parkedServer(t, Options{})
	for id := uint32(3); id < 7; id += 2 {
		client.headers(id, true, simple...)
		if err := c.Serve(echo); err != ErrParked {
			t.Fatalf("%v, want ErrParked", err)
		}
		if got := client.outcome(id); got != "200 /  yes" {
			t.Fatal(got)
		}
	}
	if c.Over() || len(wakes) > 0 {
		t.Error("Wake was called")
	}
}

func TestEndingAParkedConnectionCallsWake(t *testing.T) {
	for name, end := range map[string]func(c *ServerConn){
		"its idle time": func(*ServerConn) {},
		"a shutdown":    func(c *ServerConn) { c.Shutdown() },
		"a close":       func(c *ServerConn) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := Options{}
			if name == "its idle time" {
				o.IdleTimeout = 8 * time.Second // longer than a busy machine takes to park the connection
			}
			client, c, wakes := parkedServer(t, o)
			end(c)
			<-wakes
			if !c.Over() {
				t.Error("Over returned false")
			}
			if err := c.Serve(echo); err != nil {
				t.Error(err)
			}
			for {
				if _, err := client.next(); err != nil {
					break // closed
				}
			}
		})
	}
}
