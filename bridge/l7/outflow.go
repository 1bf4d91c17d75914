package l7

import (
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// An outflow is what is sent on a connection. It gathers what is small, so that
// a head and a small body leave with one system call, and holds a buffer only
// while there is something to send. One goroutine at a time uses it.
type outflow struct {
	conn net.Conn // sock, or TLS on top of it
	sock *socket.Socket
	tls  bool
	pool *socket.Pool
	from *inflow // whose bytes are written, see flow; else nil

	dropped func() // drop, if it is made; nil

	buf  *[]byte // nil if nothing is held
	held []byte  // what is not sent yet; in *buf unless it is larger
	err  error   // of sending, for good

	// Of the body of the message that is being sent.
	framed http1.Body
	left   int64 // of a sized one
}

// errLength is what a body fails with that is not what its head says.
var errLength = errors.New("the body is not as long as its head said")

// direct is the least size of what is sent without being copied first.
const direct = 8 << 10

func newOutflow(conn net.Conn, sock *socket.Socket, pool *socket.Pool) outflow {
	secure := conn != net.Conn(sock)
	if secure {
		sock.Gather(pool) // the records of one write
	}
	return outflow{conn: conn, sock: sock, tls: secure, pool: pool}
}

// begin returns what is held, to append to; keep takes what came of it.
func (o *outflow) begin() []byte {
	if o.buf == nil {
		o.buf = o.pool.Get()
		o.held = (*o.buf)[:0]
	}
	return o.held
}

func (o *outflow) keep(held []byte) { o.held = held }

// write sends p, or holds it until flush.
func (o *outflow) write(p []byte) error {
	if o.err != nil {
		return o.err
	}
	if len(p) < direct && len(o.held)+len(p) <= socket.BufferSize {
		o.held = append(o.begin(), p...)
		return nil
	}
	if o.push(); o.err == nil {
		o.err = o.send(p)
	}
	return o.err
}

// frame says how the body that follows is framed; NoBody: it is another protocol's
// stream.
func (o *outflow) frame(f http1.Framing) { o.framed, o.left = f.Body, f.Length }

// writeBody sends a part of the body, or holds it until flush.
func (o *outflow) writeBody(p []byte) error {
	switch o.framed {
	case http1.Sized:
		if o.left -= int64(len(p)); o.left < 0 {
			return errLength
		}
	case http1.InChunks:
		return o.writeChunk(p)
	}
	return o.write(p)
}

// endBody completes the body, and sends everything.
func (o *outflow) endBody(trailer message.Fields) error {
	switch o.framed {
	case http1.Sized:
		if o.left != 0 {
			return errLength
		}
	case http1.InChunks:
		b, err := http1.AppendLastChunk(o.begin(), trailer)
		o.keep(b)
		if err != nil {
			return err
		}
	case http1.NoBody:
		if err := o.flush(); err != nil {
			return err
		}
		return o.closeWrite()
	}
	return o.flush()
}

// closeWrite ends the stream; reading goes on.
func (o *outflow) closeWrite() error {
	if tc, ok := o.conn.(*tls.Conn); ok {
		if err := tc.CloseWrite(); err != nil {
			return err
		}
		// crypto/tls lets every later write fail by a deadline that has passed,
		// and so would what it has just written, which is yet to be flushed.
		_ = o.sock.SetWriteDeadline(time.Time{}) // fails only if it is closed, and then so does Flush
	}
	return o.sock.CloseWrite()
}

// send writes p to the connection. While that takes no more nothing is held but
// what is left of p.
func (o *outflow) send(p []byte) error {
	if o.tls {
		o.sock.Expect(len(p)) // so that it is Flush that waits
		_, err := o.conn.Write(p)
		return err
	}
	n, err := o.sock.TryWrite(p)
	if n == len(p) || err != nil {
		return err
	}
	rest := o.pool.Lend(len(p) - n)
	defer o.pool.Put(rest)
	n = copy(*rest, p[n:])
	if o.from != nil {
		o.from.shrink() // p with it
	}
	_, err = o.conn.Write((*rest)[:n])
	return err
}

// flush sends everything that is held.
func (o *outflow) flush() error {
	o.push()
	if o.err == nil {
		o.err = o.sock.Flush()
	}
	return o.err
}

// push writes what is held to the connection.
func (o *outflow) push() {
	if len(o.held) > 0 && o.err == nil {
		_, o.err = o.conn.Write(o.held)
	}
	o.drop()
}

// drop forgets what is held.
func (o *outflow) drop() {
	if o.buf != nil {
		o.pool.Put(o.buf)
		o.buf, o.held = nil, nil
	}
}

// writeChunk sends p as a chunk, or holds it until flush.
func (o *outflow) writeChunk(p []byte) error {
	if len(p) == 0 || o.err != nil {
		return o.err
	}
	if len(p) < direct && len(o.held)+len(p)+maxChunkLine <= socket.BufferSize {
		o.keep(http1.AppendChunk(o.begin(), p))
		return nil
	}
	o.keep(http1.AppendChunkSize(o.begin(), len(p)))
	if err := o.write(p); err != nil {
		return err
	}
	o.keep(append(o.begin(), http1.ChunkEnd...))
	return nil
}

// A flow is what arrives on one connection and is sent on another. As long as
// both know it, much of it is moved at once, and neither holds much while it
// waits.
type flow struct {
	in  *inflow
	out *outflow
}

// flowOf returns the flow from a front to a back or from a back to a front, no
// flow if one of them is not a connection of its own.
func flowOf(from, to any) (f flow) {
	switch from := from.(type) {
	case *front1:
		f.in = &from.in
	case *conn1:
		f.in = &from.in
	}
	switch to := to.(type) {
	case *front1:
		f.out = &to.out
	case *conn1:
		f.out = &to.out
	}
	if f.in == nil || f.out == nil {
		return flow{}
	}
	return f
}

// begin lets both sides know; end lets them forget.
func (f flow) begin() {
	if f.in != nil {
		f.in.sock.FlowInto(f.out.sock)
		f.out.from = f.in
	}
}

func (f flow) end() {
	if f.in != nil {
		f.in.sock.FlowInto(nil)
		f.out.from = nil
	}
}

// maxChunkLine is more bytes than a chunk has besides its data.
const maxChunkLine = 32
