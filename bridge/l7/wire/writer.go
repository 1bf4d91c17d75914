package wire

import (
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// A Writer sends on a connection. It gathers small writes, so that a head and a
// small body leave with one system call. It holds a buffer only while it has
// bytes to send. One goroutine at a time uses it.
type Writer struct {
	conn net.Conn // sock, or TLS on top of it
	sock *socket.Socket
	tls  bool
	pool *socket.Pool
	from *Reader // the Reader whose bytes are written, see Flow; may be nil

	dropped func() // the method value Drop, made by the first Exchange

	buf  *[]byte // nil if nothing is held
	held []byte  // bytes that are not sent yet; in *buf unless they are too many
	err  error   // why nothing can be sent any more

	// These fields describe the body of the message that is being sent.
	framed    http1.Body
	left      int64 // bytes of a sized body still to be sent
	chunkLeft int   // bytes of the present chunk still to be sent

	roomSeen bool // the kernel had room when the socket began to hold the present records
}

// errLength reports a body whose length differs from the one in its head.
var errLength = errors.New("the body's length differs from the one in its head")

// direct is the smallest write that is sent without a copy.
const direct = 8 << 10

// NewWriter returns the Writer of a connection: sock, or TLS on top of it.
func NewWriter(conn net.Conn, sock *socket.Socket, pool *socket.Pool) Writer {
	secure := conn != net.Conn(sock)
	if secure {
		sock.Gather(pool) // gathers the records of one write
	}
	return Writer{conn: conn, sock: sock, tls: secure, pool: pool}
}

// Begin returns the held bytes. The caller appends to them and passes the
// result to Keep.
func (w *Writer) Begin() []byte {
	if w.buf == nil {
		w.buf = w.pool.Get()
		w.held = (*w.buf)[:0]
	}
	return w.held
}

// Keep replaces the held bytes.
func (w *Writer) Keep(held []byte) { w.held = held }

// Err returns why nothing can be sent any more, or nil.
func (w *Writer) Err() error { return w.err }

// Write sends p, or holds it until Flush.
func (w *Writer) Write(p []byte) error {
	if w.err != nil {
		return w.err
	}
	if len(p) < direct && len(w.held)+len(p) <= socket.BufferSize {
		w.held = append(w.Begin(), p...)
		return nil
	}
	if w.push(); w.err == nil {
		w.err = w.send(p)
	}
	return w.err
}

// Frame sets the framing of the body that follows. If the framing says that there is
// no body, the stream of another protocol follows.
func (w *Writer) Frame(f http1.Framing) { w.framed, w.left, w.chunkLeft = f.Body, f.Length, 0 }

// WriteBody sends a part of the body, or holds it until Flush.
func (w *Writer) WriteBody(p []byte) error {
	switch w.framed {
	case http1.Sized:
		if w.left -= int64(len(p)); w.left < 0 {
			return errLength
		}
	case http1.InChunks:
		return w.writeChunk(p)
	}
	return w.Write(p)
}

// EndBody completes the body, and sends everything.
func (w *Writer) EndBody(trailer message.Fields) error {
	switch w.framed {
	case http1.Sized:
		if w.left != 0 {
			return errLength
		}
	case http1.InChunks:
		b, err := http1.AppendLastChunk(w.Begin(), trailer)
		w.Keep(b)
		if err != nil {
			return err
		}
	case http1.NoBody:
		if err := w.Flush(); err != nil {
			return err
		}
		return w.CloseWrite()
	}
	return w.Flush()
}

// CloseWrite ends the stream; the peer can still be read.
func (w *Writer) CloseWrite() error {
	if tc, ok := w.conn.(*tls.Conn); ok {
		if err := tc.CloseWrite(); err != nil {
			return err
		}
		// crypto/tls has set a write deadline in the past, which would also fail
		// the close_notify that is yet to be flushed.
		_ = w.sock.SetWriteDeadline(time.Time{}) // fails only on a closed socket, and then Flush fails too
	}
	return w.sock.CloseWrite()
}

// send writes p to the connection. While it blocks it holds only the rest of p.
func (w *Writer) send(p []byte) error {
	if w.tls {
		w.sock.Expect(len(p)) // so that only Flush waits
		_, err := w.conn.Write(p)
		return err
	}
	n, err := w.sock.TryWrite(p)
	if n == len(p) || err != nil {
		return err
	}
	rest := w.pool.Lend(len(p) - n)
	defer w.pool.Put(rest)
	n = copy(*rest, p[n:])
	if w.from != nil {
		w.from.Shrink() // frees the buffer that p lies in
	}
	_, err = w.conn.Write((*rest)[:n])
	return err
}

// Flush sends everything that is held.
func (w *Writer) Flush() error {
	w.push()
	if w.err == nil {
		w.err = w.sock.Flush()
	}
	return w.err
}

// push writes the held bytes to the connection.
func (w *Writer) push() {
	if len(w.held) > 0 && w.err == nil {
		_, w.err = w.conn.Write(w.held)
	}
	w.Drop()
}

// Drop discards the held bytes.
func (w *Writer) Drop() {
	if w.buf != nil {
		w.pool.Put(w.buf)
		w.buf = nil
	}
	w.held = nil
}

// writeChunk sends p as a chunk, or holds it until Flush.
func (w *Writer) writeChunk(p []byte) error {
	if len(p) == 0 || w.err != nil {
		return w.err
	}
	if n := min(len(p), w.chunkLeft); n > 0 { // TryWriteBody sent the first part of the chunk
		if err := w.Write(p[:n]); err != nil {
			return err
		}
		w.chunkSent(n)
		return w.writeChunk(p[n:])
	}
	if len(p) < direct && len(w.held)+len(p)+maxChunkLine <= socket.BufferSize {
		w.Keep(http1.AppendChunk(w.Begin(), p))
		return nil
	}
	w.Keep(http1.AppendChunkSize(w.Begin(), len(p)))
	if err := w.Write(p); err != nil {
		return err
	}
	w.Keep(append(w.Begin(), http1.ChunkEnd...))
	return nil
}

// maxChunkLine exceeds the size of a chunk without its data.
const maxChunkLine = 32
