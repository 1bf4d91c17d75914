package socket

import (
	"errors"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
)

// A sender writes to a connection. One goroutine at a time may write.
type sender struct {
	conn            net.Conn
	direct          *Direct      // nil until the first write
	ends            resetTracker // records resets that writes report
	readBeforeReset atomic.Bool  // ReadBeforeReset was called, and no bytes have been read since
	wrote           atomic.Bool  // bytes were written since the last read
}

// send writes p to the connection, and ignores the errors that ReadBeforeReset hides.
func (w *sender) send(p []byte) (int, error) {
	n, err := w.write(p)
	return w.hideError(p, n, err)
}

// trySend is send without waiting. A short write is not an error.
func (w *sender) trySend(p []byte) (int, error) {
	n, err := w.tryWrite(p)
	return w.hideError(p, n, err)
}

// hideError replaces the result of a write of p while ReadBeforeReset is in effect.
func (w *sender) hideError(p []byte, n int, err error) (int, error) {
	if err != nil && w.readBeforeReset.Load() && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		return len(p), nil
	}
	return n, err
}

// write writes p to the connection.
func (w *sender) write(p []byte) (n int, err error) {
	w.mark()
	w.ends.begin()
	if d := w.toDirect(); d != nil {
		n, err = d.Write(p)
	} else {
		n, err = w.conn.Write(p)
	}
	w.ends.end(err)
	return n, err
}

// mark records a write.
func (w *sender) mark() {
	if !w.wrote.Load() {
		w.wrote.Store(true)
	}
}

func (w *sender) tryWrite(p []byte) (n int, err error) {
	w.mark()
	w.ends.begin()
	defer func() { w.ends.end(err) }()
	if d := w.toDirect(); d != nil {
		return d.TryWrite(p)
	}
	if c, ok := w.conn.(interface{ TryWrite([]byte) (int, error) }); ok {
		return c.TryWrite(p)
	}
	return 0, nil
}

// toDirect returns the Direct to write with, or nil if the connection is not a kernel
// socket.
func (w *sender) toDirect() *Direct {
	switch w.conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		if w.direct == nil {
			w.direct = NewDirect(w.conn)
		}
		return w.direct
	}
	return nil
}

// wasReset reports whether the peer reset the connection, after a read of raw returned the
// end of the stream. If the peer ended its stream before the reset, nothing was cut off:
// the kernel then returns EPIPE to writes.
func (w *sender) wasReset(raw syscall.RawConn) bool {
	if w.ends.reset.Load() {
		return true
	}
	peerReset := false
	if raw != nil {
		_ = raw.Control(func(fd uintptr) { peerReset = WasReset(int(fd)) }) // fails only if the socket is closed
	}
	// A write that got the error may not have recorded it yet. It does so soon: the
	// connection has ended.
	for peerReset && w.ends.writes.Load() > 0 && !w.ends.reset.Load() {
		runtime.Gosched()
	}
	return w.ends.reset.Load()
}
