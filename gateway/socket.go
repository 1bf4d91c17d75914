package gateway

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A lease is one server's hold on a listening socket. It can be passed to the
// server that follows, when a listener changes its protocol or name but not its
// address: the socket stays open, and with it the kernel's queue of connections
// that nobody has accepted yet.
type lease struct {
	net.Listener
	descriptors *descriptors
	passed      atomic.Bool
	ended       chan struct{} // closed when Accept has said that the lease is over
	endOnce     sync.Once
	closed      chan struct{} // closed by Close
	closeOnce   sync.Once
}

// deadliner is what *net.TCPListener and *net.UnixListener have in common.
type deadliner interface{ SetDeadline(time.Time) error }

func newLease(socket net.Listener, d *descriptors) *lease {
	return &lease{Listener: socket, descriptors: d, ended: make(chan struct{}), closed: make(chan struct{})}
}

// next returns the lease of the server that follows.
func (l *lease) next() *lease { return newLease(l.Listener, l.descriptors) }

// Accept implements net.Listener. While file descriptors are short it waits,
// and the kernel keeps the clients that come.
func (l *lease) Accept() (net.Conn, error) {
	for {
		if !l.descriptors.await(l) && !l.passed.Load() {
			return nil, net.ErrClosed
		}
		if l.passed.Load() {
			l.endOnce.Do(func() { close(l.ended) })
			return nil, net.ErrClosed
		}
		conn, err := l.Listener.Accept()
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return conn, err
		}
		// The deadline woke every lease of the socket. Whoever was not meant
		// waits for the one that was.
		if !l.passed.Load() {
			time.Sleep(time.Millisecond)
		}
	}
}

// Close implements net.Listener. A lease that was passed on closes nothing.
func (l *lease) Close() error {
	if l.passed.Load() {
		return nil
	}
	l.closeOnce.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// pass ends the lease, without closing the socket. When it returns, every
// connection that was accepted under the lease is with its server, and no
// further one will be. The server must be in Serve, and not yet in Shutdown.
func (l *lease) pass() {
	l.passed.Store(true)
	socket := l.Listener.(deadliner)
	socket.SetDeadline(time.Unix(1, 0))
	<-l.ended
	socket.SetDeadline(time.Time{})
}
