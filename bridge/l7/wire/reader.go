package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"sync/atomic"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// A Reader reads a connection and decrypts it. It holds a buffer only while it
// has unconsumed bytes. One goroutine at a time uses it.
type Reader struct {
	sock  *socket.Socket
	tls   *tls.Conn // nil: plaintext
	pool  socket.Lender
	count *atomic.Uint64 // counts bytes as they arrive, before decryption; nil: not counted

	unread         []byte  // bytes that arrived and were not consumed
	borrowed       bool    // unread is the socket's buffer
	own            *[]byte // the buffer of unread if it is not the socket's, else nil
	end            int     // the end of unread in own
	err            error   // the error that follows the unread bytes
	mayRenegotiate bool    // the TLS handshake may be repeated
	open           bool    // tls may hold more decrypted bytes
}

// NewReader returns the Reader of a connection, plaintext if tc is nil. count, if
// it is not nil, counts the bytes that arrive, before they are decrypted.
func NewReader(sock *socket.Socket, tc *tls.Conn, pool *socket.Pool, count *atomic.Uint64) Reader {
	sock.Stream(pool)
	if tc != nil {
		socket.MeterOf(sock).Limit()
	}
	return Reader{sock: sock, tls: tc, pool: socket.NewLender(pool), count: count}
}

// Unread returns the bytes that arrived and were not consumed. It is valid
// until the next call of More, Try, Release, Shrink or IsIdle.
func (in *Reader) Unread() []byte { return in.unread }

// Err returns the error after the unread bytes, io.EOF at the end of the stream,
// or nil if none is known yet.
func (in *Reader) Err() error { return in.err }

// AllowHandshake sets whether the peer may repeat the TLS handshake. While it may, Try can
// wait for a handshake to complete.
func (in *Reader) AllowHandshake(allowed bool) { in.mayRenegotiate = allowed }

// Consume drops the first n unread bytes. They stay valid until the next call
// of More, Try or Release.
func (in *Reader) Consume(n int) { in.unread = in.unread[n:] }

// More waits until more bytes have arrived. At the end of the stream it returns
// io.EOF, or io.ErrUnexpectedEOF if TLS ended without close_notify.
func (in *Reader) More() error {
	for {
		if got, err := in.Try(); got || err != nil {
			return err
		}
		in.Shrink()
		if err := in.fill(); err != nil {
			return err
		}
	}
}

// Try is More without the wait; it reports whether more bytes have arrived.
func (in *Reader) Try() (got bool, err error) {
	switch {
	case in.err != nil:
		return false, in.err
	case in.tls != nil:
		return in.decrypt()
	case in.borrowed || len(in.sock.Taken()) == 0:
		return false, nil
	case len(in.unread) == 0:
		in.returnOwn()
		in.unread, in.borrowed = in.sock.Taken(), true
		return true, nil
	}
	in.room()
	n, _ := in.sock.Read((*in.own)[in.end:]) // cannot fail: bytes have arrived
	in.grown(n)
	return true, nil
}

// decrypt reads the bytes that can be decrypted without waiting, up to the room
// in the buffer.
func (in *Reader) decrypt() (got bool, err error) {
	if len(in.unread) == 0 {
		in.end = 0
	}
	for {
		if in.own == nil {
			in.own = in.pool.Read(in.want())
		}
		if !got {
			in.room()
		}
		in.sock.AllowWait(in.mayRenegotiate)
		n, err := in.tls.Read((*in.own)[in.end:])
		if n > 0 {
			in.grown(n)
			got = true
		}
		socket.MeterOf(in.sock).Data(n)
		in.open = err == nil
		switch {
		case err == nil && in.end < len(*in.own):
		case err == nil || errors.Is(err, socket.ErrWouldBlock):
			return got, nil
		default:
			in.err = err
			if got {
				err = nil
			}
			return got, err
		}
	}
}

// want returns the size of the buffer to decrypt into: room for all bytes that
// arrived, if there are many, and for the rest of an earlier record.
func (in *Reader) want() int {
	if n := len(in.sock.Taken()); n > socket.BufferSize {
		return n + maxRecord
	}
	return socket.BufferSize
}

// maxRecord is the largest payload of a TLS record.
const maxRecord = 16 << 10

// room makes room in own after the unread bytes.
func (in *Reader) room() {
	if in.end < len(*in.own) {
		return
	}
	if len(in.unread) < len(*in.own) {
		in.end = copy(*in.own, in.unread)
	} else {
		larger := in.pool.Lend(2 * len(*in.own))
		in.end = copy(*larger, in.unread)
		in.pool.Put(in.own)
		in.own = larger
	}
	in.unread = (*in.own)[:in.end]
}

// grown adds n bytes, which were written after the unread bytes, to unread.
func (in *Reader) grown(n int) {
	begin := in.end - len(in.unread)
	in.end += n
	in.unread = (*in.own)[begin:in.end]
}

// fill waits until bytes arrive.
func (in *Reader) fill() error {
	if err := in.sock.Fill(); err != nil {
		return in.ended(err)
	}
	in.arrived()
	return nil
}

// ended translates the error of a read.
func (in *Reader) ended(err error) error {
	if err == io.EOF && in.tls != nil {
		return io.ErrUnexpectedEOF // no close_notify arrived
	}
	return err
}

// Arrived reports whether bytes, or the end of the stream, have arrived since the
// last wait. It does not wait. The bytes may be only a part of a TLS record.
func (in *Reader) Arrived() bool {
	if len(in.sock.Taken()) > 0 {
		return true
	}
	if in.sock.TryFill() == socket.ErrWouldBlock {
		return false
	}
	in.arrived()
	return true
}

// arrived counts the bytes that the socket has just read.
func (in *Reader) arrived() {
	if in.count != nil {
		in.count.Add(uint64(len(in.sock.Taken())))
	}
}

// Exchange sends the bytes that w holds for the same idle connection, and waits for
// the response. If bytes had arrived before, or the connection had ended, it sends
// nothing and fails with ErrStale.
func (in *Reader) Exchange(w *Writer) error {
	if len(in.unread) > 0 || in.err != nil || in.open && !in.IsIdle() {
		return ErrStale
	}
	in.Release()
	var err error
	if in.tls != nil {
		if w.push(); w.err != nil {
			return w.err
		}
		err = in.sock.Exchange(nil, nil)
	} else {
		if w.dropped == nil {
			w.dropped = w.Drop
		}
		err = in.sock.Exchange(w.held, w.dropped)
	}
	switch {
	case err == nil:
		in.arrived()
		return nil
	case !errors.Is(err, socket.ErrUnsolicited):
		return in.ended(err)
	case !in.IsIdle(): // an idle connection got only a session ticket
		return ErrStale
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return in.fill()
}

// Errors of connections that were used before. ErrStale reports that no byte of the
// request was sent. ErrNoResponse reports that the connection ended before any byte
// of a response arrived.
var (
	ErrStale      = errors.New("the connection was closed while it was idle, or the upstream sent more than the response to an earlier request")
	ErrNoResponse = errors.New("the connection ended before a response began")
)

// Release returns the buffer to its pool if nothing in it is unread.
func (in *Reader) Release() {
	if len(in.unread) > 0 {
		return
	}
	if in.borrowed {
		in.borrowed = false
		in.sock.Release()
	}
	in.returnOwn()
}

// Shrink moves the unread bytes into the smallest buffer that holds them. Call
// it before a wait.
func (in *Reader) Shrink() {
	n := len(in.unread)
	switch {
	case n == 0:
		in.Release()
	case in.borrowed:
		in.own = in.pool.Lend(n)
		in.end = copy(*in.own, in.unread)
		in.unread = (*in.own)[:n]
		in.borrowed = false
		in.sock.Release()
	default:
		if b := in.pool.Shrink(in.own, in.unread); b != in.own {
			in.own, in.end, in.unread = b, n, (*b)[:n]
		}
	}
	in.sock.Shrink()
}

// Charge charges the buffers that the reader holds, now and later, to b; nil means no budget.
func (in *Reader) Charge(b *socket.Budget) {
	socket.Charge(in.sock, b)
	in.pool.Charge(b, in.own)
}

// Limit bounds the next reads to n bytes or the smallest buffer, if there is a budget.
func (in *Reader) Limit(n int) {
	socket.LimitReads(in.sock, n)
	in.pool.Limit(n)
}

// Holds reports whether the reader holds bytes. If not, it returns its buffer to its pool.
func (in *Reader) Holds() bool {
	in.Release()
	return len(in.unread) > 0 || len(in.sock.Taken()) > 0
}

// Detach moves p, which was consumed last, into a buffer of its own, and the bytes after it
// into the smallest buffer that holds them: p is about to wait. The caller must return the
// buffer with Return.
func (in *Reader) Detach(p []byte) *[]byte {
	b := in.pool.Lend(len(p))
	copy(*b, p)
	in.Shrink()
	return b
}

// Return returns a buffer of Detach.
func (in *Reader) Return(b *[]byte) { in.pool.Put(b) }

// Drop returns every buffer to its pool, and discards the unread bytes.
func (in *Reader) Drop() {
	in.borrowed = false
	in.returnOwn()
	in.sock.Release()
}

func (in *Reader) returnOwn() {
	in.unread = nil
	if in.own != nil {
		in.pool.Put(in.own)
		in.own, in.end = nil, 0
	}
}

// IsIdle reports whether all bytes that arrived were consumed and the peer has not
// ended the stream. It does not wait, and ignores TLS session tickets. If it
// reports false, the bytes that it found are lost and the connection must not be
// used again.
func (in *Reader) IsIdle() bool {
	if len(in.unread) > 0 || in.err != nil {
		return false
	}
	if in.open {
		if got, err := in.decrypt(); got || err != nil {
			return false
		}
	}
	in.Release()
	for {
		err := in.sock.TryFill()
		if err == socket.ErrWouldBlock {
			return true
		}
		if err != nil || in.tls == nil {
			return false
		}
		if got, err := in.decrypt(); got || err != nil {
			return false
		}
		in.Release()
	}
}
