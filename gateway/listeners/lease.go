package listeners

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// A listener is a listening socket whose Accept a deadline wakes.
type listener interface {
	net.Listener
	SetDeadline(time.Time) error
}

// A sharedSocket is a listening socket and the one lease that may accept from it.
//
// Servers change while the socket stays open, and with it the kernel's queue of
// connections that no one has accepted yet: so a listener changes its protocol
// or name without refusing a client.
type sharedSocket struct {
	listener
	descriptors *Descriptors

	mu    sync.Mutex
	owner *lease // changes only together with the deadline of the listener
}

// newLease returns the first lease of a socket that was just bound.
func newLease(l listener, d *Descriptors) *lease {
	s := &sharedSocket{listener: l, descriptors: d}
	s.owner = newLeaseOf(s, nil)
	return s.owner
}

// A lease is one server's turn at accepting from a socket. Its server must call
// Accept until that fails, and finish must be called when the server has ended.
type lease struct {
	*sharedSocket
	before *lease        // must have ended before this one accepts; nil for the first
	over   chan struct{} // closed when the lease is passed on or the socket is closed
	ended  chan struct{} // closed when the server has everything that was accepted for it

	begun   bool // belongs to the one goroutine that accepts
	endOnce sync.Once
}

func newLeaseOf(s *sharedSocket, before *lease) *lease {
	return &lease{sharedSocket: s, before: before, over: make(chan struct{}), ended: make(chan struct{})}
}

// next returns a lease for the server that follows. It accepts nothing until
// passTo has been called.
func (l *lease) next() *lease { return newLeaseOf(l.sharedSocket, l) }

// passTo makes next, which must come from l.next, the owner of the socket.
func (l *lease) passTo(next *lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owner = next
	close(l.over)
	// It wakes Accept. Only the lease that owns the socket once all before it
	// have ended takes the deadline back: a lease that cleared it while another
	// hand-over was under way would leave that one asleep.
	l.SetDeadline(time.Unix(1, 0))
}

// begin waits until every lease before this one has ended. It reports whether
// this lease may accept.
func (l *lease) begin() bool {
	if l.begun {
		return true
	}
	if l.before != nil {
		<-l.before.ended
		l.before = nil // and with it all that came before
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isOver() {
		return false
	}
	l.begun = true
	l.SetDeadline(time.Time{})
	return true
}

func (l *lease) isOver() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}

// finish ends the lease: everything that was accepted under it is with its
// server.
func (l *lease) finish() { l.endOnce.Do(func() { close(l.ended) }) }

// Accept implements net.Listener. While file descriptors are short it waits,
// and the kernel keeps the clients that come.
func (l *lease) Accept() (net.Conn, error) {
	if !l.begin() || !l.descriptors.await(l) {
		l.finish()
		return nil, net.ErrClosed
	}
	conn, err := l.listener.Accept()
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
		l.finish()
		return nil, net.ErrClosed
	}
	return nil, err
}

// Close implements net.Listener: it closes the socket and returns once the
// kernel has. A lease that was passed on closes nothing.
func (l *lease) Close() error {
	l.mu.Lock()
	if l.isOver() {
		l.mu.Unlock()
		return nil
	}
	close(l.over)
	l.mu.Unlock()
	return l.listener.Close()
}
