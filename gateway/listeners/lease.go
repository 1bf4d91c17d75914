package listeners

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/gateway/handover"
)

// A listener is a listening socket whose Accept returns when a deadline passes.
type listener interface {
	handover.Listener
	SetDeadline(time.Time) error
}

// A sharedSocket is a listening socket and the one lease that may accept from it.
//
// When servers change, the socket stays open and keeps the kernel's queue of
// connections that are not accepted yet. So a listener can change its protocol or name
// without rejecting a client.
type sharedSocket struct {
	listener
	descriptors *Descriptors
	hold        <-chan struct{} // the lease accepts only after hold is closed; nil: at once

	mu    sync.Mutex
	owner *lease // changes only together with the listener's deadline
}

// newLease returns the first lease of a newly bound socket.
func newLease(l listener, d *Descriptors, hold <-chan struct{}) *lease {
	s := &sharedSocket{listener: l, descriptors: d, hold: hold}
	s.owner = newLeaseOf(s, nil)
	return s.owner
}

// A lease is one server's right to accept from a socket. The server must call Accept
// until it fails, and finish must be called when the server has ended.
type lease struct {
	*sharedSocket
	before  *lease        // the lease that must end before this one accepts, or nil
	revoked chan struct{} // closed when the lease is handed over or the socket is closed
	ended   chan struct{} // closed when the server has received every accepted connection

	begun   bool // belongs to the goroutine that accepts
	endOnce sync.Once
}

func newLeaseOf(s *sharedSocket, before *lease) *lease {
	return &lease{sharedSocket: s, before: before, revoked: make(chan struct{}), ended: make(chan struct{})}
}

// next returns a lease for the next server. It accepts nothing until passTo has been
// called.
func (l *lease) next() *lease { return newLeaseOf(l.sharedSocket, l) }

// passTo makes next the owner of the socket. next must come from l.next.
func (l *lease) passTo(next *lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owner = next
	close(l.revoked)
	// The deadline wakes Accept. Only the owner clears it, and only after all earlier
	// leases have ended: clearing it during another hand-over would leave that hand-over
	// waiting.
	l.SetDeadline(time.Unix(1, 0))
}

// begin waits until every lease before this one has ended. It reports whether
// this lease may accept.
func (l *lease) begin() bool {
	if l.begun {
		return true
	}
	if l.hold != nil {
		select {
		case <-l.hold:
		case <-l.revoked:
			return false
		}
	}
	if l.before != nil {
		<-l.before.ended
		l.before = nil // lets the garbage collector free the earlier leases
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isRevoked() {
		return false
	}
	l.begun = true
	l.SetDeadline(time.Time{})
	return true
}

func (l *lease) isRevoked() bool {
	select {
	case <-l.revoked:
		return true
	default:
		return false
	}
}

// finish ends the lease. It is called when the server has received every
// accepted connection.
func (l *lease) finish() { l.endOnce.Do(func() { close(l.ended) }) }

// Accept implements net.Listener. While file descriptors are short it waits, and new
// clients wait in the kernel's queue.
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

// Close implements net.Listener: it closes the socket and returns once the kernel has
// closed it. It does nothing on a lease that was handed over.
func (l *lease) Close() error {
	l.mu.Lock()
	if l.isRevoked() {
		l.mu.Unlock()
		return nil
	}
	close(l.revoked)
	l.mu.Unlock()
	return l.listener.Close()
}
