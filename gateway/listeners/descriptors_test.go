package listeners

import (
	"bytes"
	"errors"
	"net"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// limited returns Descriptors with a limit that the test sets. Clients use all
// of them.
func limited(t *testing.T) (*Descriptors, *atomic.Int64, *bytes.Buffer) {
	limit, log := new(atomic.Int64), &bytes.Buffer{}
	limit.Store(100)
	d := &Descriptors{
		Descriptors: socket.NewDescriptors(func() int { return int(limit.Load()) }),
		log:         hclog.New(&hclog.LoggerOptions{Output: log}),
	}
	for d.Room() {
		d.AddClients(1)
	}
	return d, limit, log
}

type accepted struct {
	conn net.Conn
	err  error
}

// pausing returns a lease and starts a goroutine that accepts on it. It returns
// when the lease has paused.
func pausing(t *testing.T, d *Descriptors) (*lease, chan accepted) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	l := newLease(ln.(*net.TCPListener), d, nil)
	return l, acceptOn(t, d, l)
}

func acceptOn(t *testing.T, d *Descriptors, l *lease) chan accepted {
	before := d.pauses.Load()
	c := make(chan accepted, 1)
	go func() {
		conn, err := l.Accept()
		c <- accepted{conn, err}
	}()
	for d.pauses.Load() == before {
		runtime.Gosched()
	}
	return c
}

func (a accepted) close() {
	if a.conn != nil {
		a.conn.Close()
	}
}

func TestListenerPausesUntilDescriptorsAreFree(t *testing.T) {
	for what, more := range map[string]func(*Descriptors, *atomic.Int64){
		"a client leaves":     func(d *Descriptors, _ *atomic.Int64) { d.AddClients(-1) },
		"the limit is raised": func(_ *Descriptors, limit *atomic.Int64) { limit.Store(200) },
	} {
		t.Run(what, func(t *testing.T) {
			d, limit, log := limited(t)
			l, result := pausing(t, d)
			dial(t, l.Addr())
			if d.paused.Load() != 1 {
				t.Errorf("%d paused", d.paused.Load())
			}
			more(d, limit)
			a := <-result
			if a.close(); a.err != nil {
				t.Error(a.err)
			}
			if d.paused.Load() != 0 || log.Len() == 0 {
				t.Errorf("after it, %d paused, logged %q", d.paused.Load(), log.String())
			}
		})
	}
}

func TestPausedListenerCanBeClosed(t *testing.T) {
	d, _, _ := limited(t)
	l, result := pausing(t, d)
	l.Close()
	if a := <-result; !errors.Is(a.err, net.ErrClosed) {
		t.Errorf("Accept: %v", a.err)
	}
}

func TestPausedListenerCanBeHandedOver(t *testing.T) {
	d, _, _ := limited(t)
	l, result := pausing(t, d)
	next := l.next()
	l.passTo(next)
	if a := <-result; !errors.Is(a.err, net.ErrClosed) {
		t.Errorf("Accept: %v", a.err)
	}
	l.Close()
	result = acceptOn(t, d, next)
	dial(t, next.Addr())
	d.AddClients(-1)
	a := <-result
	if a.close(); a.err != nil {
		t.Errorf("the next: %v", a.err)
	}
}

func dial(t *testing.T, a net.Addr) {
	t.Helper()
	c, err := net.Dial(a.Network(), a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
}
