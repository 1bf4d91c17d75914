package gateway

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// limited returns descriptors with a limit that the test sets, all taken by
// clients.
func limited(t *testing.T) (*descriptors, *atomic.Int64, *lockedBuffer) {
	limit, log := new(atomic.Int64), &lockedBuffer{}
	limit.Store(100)
	d := &descriptors{
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

// pausing returns a lease on which somebody accepts, and has paused.
func pausing(t *testing.T, d *descriptors) (*lease, chan accepted) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	l := newLease(ln, d)
	return l, acceptOn(t, d, l)
}

func acceptOn(t *testing.T, d *descriptors, l *lease) chan accepted {
	before := d.pauses.Load()
	c := make(chan accepted, 1)
	go func() {
		conn, err := l.Accept()
		c <- accepted{conn, err}
	}()
	eventually(t, "it pauses", func() bool { return d.pauses.Load() > before })
	return c
}

func (a accepted) close() {
	if a.conn != nil {
		a.conn.Close()
	}
}

func TestAListenerPausesUntilThereAreDescriptors(t *testing.T) {
	for what, more := range map[string]func(*descriptors, *atomic.Int64){
		"a client leaves":     func(d *descriptors, _ *atomic.Int64) { d.AddClients(-1) },
		"the limit is raised": func(_ *descriptors, limit *atomic.Int64) { limit.Store(200) },
	} {
		t.Run(what, func(t *testing.T) {
			d, limit, log := limited(t)
			l, result := pausing(t, d)
			dial(t, l.Addr().String())
			if d.paused.Load() != 1 || log.String() == "" {
				t.Errorf("%d paused, logged %q", d.paused.Load(), log.String())
			}
			more(d, limit)
			a := <-result
			if a.close(); a.err != nil {
				t.Error(a.err)
			}
			if d.paused.Load() != 0 {
				t.Error("still counted as paused")
			}
		})
	}
}

func TestAListenerThatPausesCanBeClosed(t *testing.T) {
	d, _, _ := limited(t)
	l, result := pausing(t, d)
	l.Close()
	if a := <-result; !errors.Is(a.err, net.ErrClosed) {
		t.Errorf("Accept: %v", a.err)
	}
}

func TestAListenerThatPausesCanBePassedOn(t *testing.T) {
	d, _, _ := limited(t)
	l, result := pausing(t, d)
	next := l.next()
	l.pass()
	if a := <-result; !errors.Is(a.err, net.ErrClosed) {
		t.Errorf("Accept: %v", a.err)
	}
	l.Close()
	result = acceptOn(t, d, next)
	dial(t, next.Addr().String())
	d.AddClients(-1)
	a := <-result
	if a.close(); a.err != nil {
		t.Errorf("the next: %v", a.err)
	}
}
