package l7

import (
	"bufio"
	"net"
	"sync"
	"time"
)

// lingerTime is how long, once one side of an upgraded connection has ended its
// stream, the other may stay silent.
const lingerTime = time.Minute

// A tunnel is the client's side of an upgraded connection. It hands out first
// what the client sent right behind its request, and it does not let a
// connection of which one side has ended wait for the other for ever.
type tunnel struct {
	net.Conn
	early *bufio.Reader // nil once it is empty; used by the reading goroutine alone

	mu     sync.Mutex
	timer  *time.Timer // nil until one side ended
	giveUp func()
}

// newTunnel returns a tunnel. giveUp must end both sides.
func newTunnel(c net.Conn, early *bufio.Reader, giveUp func()) *tunnel {
	t := &tunnel{Conn: c, giveUp: giveUp}
	if early.Buffered() > 0 {
		t.early = early
	}
	return t
}

func (t *tunnel) Read(p []byte) (int, error) {
	if t.early != nil {
		n, err := t.early.Read(p[:min(len(p), t.early.Buffered())])
		if t.early.Buffered() == 0 {
			t.early = nil
		}
		return n, err
	}
	n, err := t.Conn.Read(p)
	if err != nil {
		t.linger(true) // the client ended
	} else {
		t.linger(false)
	}
	return n, err
}

func (t *tunnel) Write(p []byte) (int, error) {
	t.linger(false)
	return t.Conn.Write(p)
}

// CloseWrite tells the client that the upstream ended.
func (t *tunnel) CloseWrite() error {
	t.linger(true)
	if c, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return t.Conn.Close()
}

// Close closes the client's side.
func (t *tunnel) Close() error {
	t.mu.Lock()
	if t.timer != nil {
		t.timer.Stop()
	}
	t.mu.Unlock()
	return t.Conn.Close()
}

// linger starts the wait for the other side, or, as a byte has moved, starts
// one that runs anew.
func (t *tunnel) linger(begin bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.timer != nil:
		t.timer.Reset(lingerTime)
	case begin:
		t.timer = time.AfterFunc(lingerTime, t.giveUp)
	}
}
