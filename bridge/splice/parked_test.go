package splice_test

import (
	"net"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
)

// parked returns a parked connection and a channel that reports its wake-ups.
func parked(t *testing.T, e *splice.Engine, near net.Conn) (p *splice.Parked, woken chan bool) {
	t.Helper()
	woken = make(chan bool, 10)
	p = e.Parked(rawConn(t, near), func() { woken <- true })
	if p == nil {
		t.Skip("nothing can be parked here")
	}
	if err := p.Park(); err != nil {
		t.Fatal(err)
	}
	return p, woken
}

func rawConn(t *testing.T, c net.Conn) syscall.RawConn {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// waitParked checks that the connection was not woken, after a later event was reported.
func waitParked(t *testing.T, e *splice.Engine, woken chan bool) {
	t.Helper()
	c := connect(t, "tcp")
	_, other := parked(t, e, c.near.Conn)
	c.far.Close()
	<-other
	select {
	case <-woken:
		t.Error("woken")
	default:
	}
}

func TestParkedConnectionsAreWoken(t *testing.T) {
	for name, happens := range map[string]func(net.Conn){
		"by bytes":   func(c net.Conn) { c.Write([]byte("x")) },
		"by an end":  func(c net.Conn) { c.(interface{ CloseWrite() error }).CloseWrite() },
		"by a close": func(c net.Conn) { c.Close() },
	} {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(name+", "+network, func(t *testing.T) {
				e := newEngine(t, 1)
				defer e.Close()
				c := connect(t, network)
				p, woken := parked(t, e, c.near.Conn)
				waitParked(t, e, woken)
				happens(c.far)
				<-woken
				if p.Leave() {
					t.Error("the connection is still parked")
				}
				waitParked(t, e, woken) // one call of wake is enough
				if err := p.Park(); err != nil {
					t.Fatal(err)
				}
				<-woken // the unread bytes wake the connection at once
			})
		}
	}
	t.Run("by a reset", func(t *testing.T) {
		e := newEngine(t, 1)
		defer e.Close()
		c := connect(t, "tcp")
		_, woken := parked(t, e, c.near.Conn)
		c.far.(*net.TCPConn).SetLinger(0)
		c.far.Close()
		<-woken
	})
}

func TestParkedConnectionsThatLeaveAreNotWoken(t *testing.T) {
	e := newEngine(t, 1)
	defer e.Close()
	c := connect(t, "tcp")
	p, woken := parked(t, e, c.near.Conn)
	if !p.Leave() || p.Leave() {
		t.Error("Leave did not report exactly once that the connection was parked")
	}
	c.far.Write([]byte("x"))
	waitParked(t, e, woken)
	p.Wake() // does nothing, because p is not parked
	waitParked(t, e, woken)
}

func TestClosedConnectionCannotBeParked(t *testing.T) {
	e := newEngine(t, 1)
	defer e.Close()
	c := connect(t, "tcp")
	p, woken := parked(t, e, c.near.Conn)
	c.near.Close()
	waitParked(t, e, woken)
	if !p.Leave() {
		t.Error("Leave after Close reports no parked connection")
	}
	if err := p.Park(); err == nil || p.Leave() {
		t.Error("a closed connection was parked:", err)
	}
}

// When an event and Leave race, exactly one of them wins.
func TestParkedConnectionHasOneOwner(t *testing.T) {
	e := newEngine(t, 2)
	defer e.Close()
	for range 200 {
		c := connect(t, "tcp")
		var woken atomic.Int32
		called := make(chan bool, 1)
		p := e.Parked(rawConn(t, c.near.Conn), func() { woken.Add(1); called <- true })
		if p == nil {
			t.Skip("nothing can be parked here")
		}
		go c.far.Write([]byte("x"))
		if err := p.Park(); err != nil {
			t.Fatal(err)
		}
		want := int32(0)
		if !p.Leave() {
			<-called
			want = 1
		}
		c.near.Close()
		c.far.Close()
		if n := woken.Load(); n != want {
			t.Fatalf("woken %d times, want %d", n, want)
		}
	}
}
