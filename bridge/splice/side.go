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

// errTruncated reports a TLS stream that ended without close_notify. Bytes may be
// missing: anyone on the path may have removed them (RFC 8446, 6.1).
var errTruncated = errors.New("TLS stream cut off without close_notify")

// A side is one of the two connections of a splice.
type side struct {
	splice *Splice
	sock   *socket.Socket
	tls    *tls.Conn // nil: plaintext

	fd   int
	conn net.Conn // owns fd; nil if fd is the side's own duplicate
	unix bool     // a short read does not mean that the socket is empty

	readable     bool // the socket may have bytes to read
	paused       bool // reading is paused: see readFrom
	readToEAGAIN bool // an end of stream or urgent data may follow: read until EAGAIN

	early []byte  // bytes read before the splice started
	in    []byte  // bytes that were read and tls has not consumed
	out   []byte  // bytes that tls writes while gathering
	queue backlog // bytes that the kernel did not accept

	dead      bool // the connection is dead: nothing sent to it can arrive
	gathering bool // Write appends to out instead of queue
	ending    bool // closeWrite was called
	ended     bool // the stream toward this side is complete, including its end

	reset, truncated, failed Ending // the Ending for each kind of failure
}

// Read returns received bytes to tls. It implements socket.Carrier.
func (x *side) Read(p []byte) (int, error) {
	if len(x.in) == 0 {
		return 0, socket.ErrWouldBlock
	}
	n := copy(p, x.in)
	x.in = x.in[n:]
	return n, nil
}

// Write accepts everything that tls writes. It implements socket.Carrier. The amount is
// bounded because the splice stops reading while much is queued.
func (x *side) Write(p []byte) (int, error) {
	if x.gathering {
		x.out = append(x.out, p...)
	} else {
		x.queue.add(&x.splice.engine.buffers, p)
	}
	return len(p), nil
}

// Close runs when another owner closes the Socket. It implements socket.Carrier.
func (x *side) Close(bool) {
	if invalid := x.sock.Invalid(); invalid != nil {
		x.splice.Cut(Unverified, invalid)
		return
	}
	x.splice.Cut(Drained, net.ErrClosed)
}

// Traffic returns the kernel's counts. It implements socket.Carrier.
func (x *side) Traffic() (t socket.Traffic, ok bool) {
	x.splice.mu.Lock()
	defer x.splice.mu.Unlock()
	if x.fd < 0 {
		return socket.Traffic{}, false
	}
	return socket.DescriptorTraffic(x.fd)
}

// receive reads at most len(p) bytes. It fails with EAGAIN if the socket has none, and
// returns io.EOF only after a clean end of the stream.
func (x *side) receive(p []byte) (int, error) {
	n, err := socket.ReadNow(x.fd, p)
	switch {
	case err == syscall.EAGAIN:
		x.readable, x.readToEAGAIN = false, false
		return 0, err
	case err != nil:
		x.dead = true
		return 0, err
	case n > 0:
		// The poller reports later bytes, so a short read needs no second read to find
		// the socket empty.
		if n < len(p) && !x.readToEAGAIN && !x.unix {
			x.readable = false
		}
		return n, nil
	case !x.ending && socket.WasReset(x.fd):
		x.dead = true
		return 0, syscall.ECONNRESET // an earlier write consumed the kernel's only report of the reset
	case x.tls != nil:
		return 0, errTruncated // with close_notify, tls would have returned io.EOF
	}
	return 0, io.EOF
}

// send writes p and queues what the kernel does not accept. It returns how much the
// kernel accepted.
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
			x.dead = true
			return sent, err
		}
	}
	return sent, nil
}

// sendQueued writes the queue until the kernel accepts no more.
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
			x.dead = true
			return sent, err
		}
	}
	return sent, nil
}

// room returns how many more bytes the side's socket can hold; 0 if unknown.
func (x *side) room() int {
	if x.unix {
		return 0
	}
	return socket.Room(x.fd)
}

// closeWrite starts to end the stream toward the side, with close_notify or a FIN. The
// queue must be empty. The stream has ended when the queue is empty again.
func (x *side) closeWrite() error {
	x.ending = true
	if x.tls == nil {
		err := unix.Shutdown(x.fd, unix.SHUT_WR)
		x.dead = err != nil
		return err
	}
	if err := x.tls.CloseWrite(); err != nil {
		return err
	}
	_, err := x.sendQueued()
	return err
}

// close closes the side, with a reset if the stream toward it is incomplete.
func (x *side) close() {
	x.queue.release(&x.splice.engine.buffers)
	x.early, x.in, x.out = nil, nil, nil
	conn := x.conn
	x.conn = nil
	if x.fd < 0 && conn == nil {
		return // closed before
	}
	if x.fd >= 0 && !x.ended {
		// It fails only on a connection that has already ended.
		_ = unix.SetsockoptLinger(x.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	if conn != nil {
		// Close waits for the goroutines that use the descriptor, and they may wait for
		// mu.
		x.splice.engine.waiting.Go(func() { _ = conn.Close() })
	} else {
		_ = unix.Close(x.fd)
	}
	x.fd = -1
}

// endingOf returns the Ending for an error of reading from the side or writing to
// it.
func (x *side) endingOf(err error) Ending {
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

// useShared makes the side use conn's descriptor, which conn still owns.
func (x *side) useShared(conn net.Conn) error {
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
