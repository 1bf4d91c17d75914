package splice

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// errTruncated reports a TLS stream that ended without close_notify: bytes may
// be missing, and anyone on the path may have taken them away (RFC 8446, 6.1).
var errTruncated = errors.New("TLS stream cut off without close_notify")

// A side is one of the two connections of a splice.
type side struct {
	splice *Splice
	sock   *socket.Socket
	tls    *tls.Conn // nil: plaintext

	fd   int
	conn net.Conn // fd's owner, if fd is not the side's own
	unix bool     // a short read does not mean that there is no more

	readable bool // there may be something to read
	urgent   bool // an end or urgent data may follow: read until there is nothing

	early []byte  // came before the splice began
	in    []byte  // was read, and tls has not seen it yet
	out   []byte  // what tls writes while it writes to here; see gathering
	queue backlog // is to be sent, and the kernel did not take

	gone      bool // nothing that is sent to it can arrive any more
	gathering bool // tls writes to out, else to queue
	ending    bool // its stream is being ended, or has been
	ended     bool // its stream has been ended: all it was sent is complete

	reset, truncated, failed Ending // what it is called when it ends badly
}

// Read is the Carrier's: what tls reads.
func (x *side) Read(p []byte) (int, error) {
	if len(x.in) == 0 {
		return 0, socket.ErrWouldBlock
	}
	n := copy(p, x.in)
	x.in = x.in[n:]
	return n, nil
}

// Write is the Carrier's: what tls writes. It takes everything. That is bounded,
// because the splice reads nothing while much is queued.
func (x *side) Write(p []byte) (int, error) {
	if x.gathering {
		x.out = append(x.out, p...)
	} else {
		x.queue.add(&x.splice.engine.buffers, p)
	}
	return len(p), nil
}

// Close is the Carrier's: somebody else closes the side.
func (x *side) Close(bool) { x.splice.Cut(Drained, net.ErrClosed) }

// receive reads what there is, at most len(p). With nothing there it fails with
// EAGAIN. At the end of the stream it returns io.EOF, only if that is clean.
func (x *side) receive(p []byte) (int, error) {
	n, err := socket.ReadNow(x.fd, p)
	switch {
	case err == syscall.EAGAIN:
		x.readable, x.urgent = false, false
		return 0, err
	case err != nil:
		x.gone = true
		return 0, err
	case n > 0:
		// The poller tells of whatever comes later, so that a read that left
		// room needs no other one to find nothing.
		if n < len(p) && !x.urgent && !x.unix {
			x.readable = false
		}
		return n, nil
	case !x.ending && socket.WasReset(x.fd):
		x.gone = true
		return 0, syscall.ECONNRESET // which a write to this side was told of
	case x.tls != nil:
		return 0, errTruncated // after a close_notify nothing is read
	}
	return 0, io.EOF
}

// send sends p, and queues what the kernel does not take. It returns how much
// the kernel took.
func (x *side) send(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		n, err := socket.WriteNow(x.fd, p[sent:])
		sent += n
		if err == syscall.EAGAIN {
			x.queue.add(&x.splice.engine.buffers, p[sent:])
			return sent, nil
		}
		if err != nil {
			x.gone = true
			return sent, err
		}
	}
	return sent, nil
}

// sendQueued sends what is queued as far as it goes.
func (x *side) sendQueued() (int, error) {
	sent := 0
	for !x.queue.empty() {
		n, err := socket.WriteNow(x.fd, x.queue.bytes())
		sent += n
		x.queue.drop(&x.splice.engine.buffers, n)
		if err == syscall.EAGAIN {
			return sent, nil
		}
		if err != nil {
			x.gone = true
			return sent, err
		}
	}
	return sent, nil
}

// room returns how much the kernel can hold of what is sent to the side, 0 if
// that is not known.
func (x *side) room() int {
	if x.unix {
		return 0
	}
	return socket.Room(x.fd)
}

// closeWrite begins to end the stream towards the side: with close_notify or a
// FIN. Nothing may be queued. It has ended when nothing is queued again.
func (x *side) closeWrite() error {
	x.ending = true
	if x.tls == nil {
		err := unix.Shutdown(x.fd, unix.SHUT_WR)
		x.gone = err != nil
		return err
	}
	if err := x.tls.CloseWrite(); err != nil {
		return err
	}
	_, err := x.sendQueued()
	return err
}

// close closes the side: with a reset if the stream towards it is incomplete.
func (x *side) close() {
	x.queue.release(&x.splice.engine.buffers)
	x.early, x.in, x.out = nil, nil, nil
	if x.fd < 0 {
		return // it was closed before it could be taken over
	}
	if !x.ended {
		// It fails only on a connection that is gone already.
		_ = unix.SetsockoptLinger(x.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	if x.conn != nil {
		// It waits for the goroutines that wait, and they may wait for mu.
		x.splice.engine.waiting.Go(func() { _ = x.conn.Close() })
	} else {
		_ = unix.Close(x.fd)
	}
	x.fd = -1
}

// called names err, which reading from the side or writing to it failed with.
func (x *side) called(err error) Ending {
	switch {
	case errors.Is(err, net.ErrClosed):
		return Drained
	case errors.Is(err, errTruncated):
		return x.truncated
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ENOTCONN):
		return x.reset
	}
	return x.failed
}

// useRaw has the side use the descriptor of conn, which goes on to own it.
func (x *side) useRaw(conn net.Conn) error {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return errors.ErrUnsupported
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	x.conn = conn
	return raw.Control(func(fd uintptr) { x.fd = int(fd) })
}
