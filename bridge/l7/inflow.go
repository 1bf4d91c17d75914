package l7

import (
	"crypto/tls"
	"errors"
	"io"
	"sync/atomic"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// An inflow is what arrives on a connection, decrypted. It holds a buffer only
// while there is something in it that was not consumed: none while it waits for
// the first byte. One goroutine at a time uses it.
type inflow struct {
	sock  *socket.Socket
	tls   *tls.Conn // nil: plaintext
	pool  *socket.Pool
	count *atomic.Uint64 // of bytes as they come, so under TLS; nil: not counted

	unread []byte  // what arrived and was not consumed
	lent   bool    // it is in the socket's buffer, all that there is
	own    *[]byte // or in this one; nil if not
	end    int     // of unread, in own
	err    error   // comes after unread
	open   bool    // the last read from tls may have left something
}

// newInflow returns the inflow of a connection, plaintext if tc is nil.
func newInflow(sock *socket.Socket, tc *tls.Conn, pool *socket.Pool, count *atomic.Uint64) inflow {
	sock.Stream(pool)
	return inflow{sock: sock, tls: tc, pool: pool, count: count}
}

// consume says that the first n bytes of unread are not needed any more. They
// stay where they are until the next call of more, try or release.
func (in *inflow) consume(n int) { in.unread = in.unread[n:] }

// more waits until there is more to be read than there is. At the end of the
// stream it returns io.EOF, for one that was cut off io.ErrUnexpectedEOF.
func (in *inflow) more() error {
	for {
		if got, err := in.try(); got || err != nil {
			return err
		}
		in.shrink()
		if err := in.fill(); err != nil {
			return err
		}
	}
}

// try is more without the wait; it reports whether there is more.
func (in *inflow) try() (got bool, err error) {
	switch {
	case in.err != nil:
		return false, in.err
	case in.tls != nil:
		return in.decrypt()
	case in.lent || len(in.sock.Taken()) == 0:
		return false, nil
	case len(in.unread) == 0:
		in.giveBack()
		in.unread, in.lent = in.sock.Taken(), true
		return true, nil
	}
	in.room()
	n, _ := in.sock.Read((*in.own)[in.end:]) // cannot fail: there is something
	in.grown(n)
	return true, nil
}

// decrypt reads whatever can be decrypted without waiting, as far as it has
// room for it.
func (in *inflow) decrypt() (got bool, err error) {
	if len(in.unread) == 0 {
		in.end = 0
	}
	for {
		if in.own == nil {
			in.own = in.pool.LendMuch(in.want())
		}
		if !got {
			in.room()
		}
		n, err := in.tls.Read((*in.own)[in.end:])
		if n > 0 {
			in.grown(n)
			got = true
		}
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

// want returns how much room is wanted for what can be decrypted: all of it, if
// it is much, and what may be left of an earlier record.
func (in *inflow) want() int {
	if n := len(in.sock.Taken()); n > socket.BufferSize {
		return n + maxRecord
	}
	return socket.BufferSize
}

// maxRecord is as much as a record of TLS carries.
const maxRecord = 16 << 10

// room sees to it that own has room behind what is unread.
func (in *inflow) room() {
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

// grown says that n bytes were put behind what is unread.
func (in *inflow) grown(n int) {
	begin := in.end - len(in.unread)
	in.end += n
	in.unread = (*in.own)[begin:in.end]
}

// fill waits until something arrives.
func (in *inflow) fill() error {
	if err := in.sock.Fill(); err != nil {
		return in.ended(err)
	}
	in.arrived()
	return nil
}

// ended returns what the error of a read means.
func (in *inflow) ended(err error) error {
	if err == io.EOF && in.tls != nil {
		return io.ErrUnexpectedEOF // no close_notify came
	}
	return err
}

// arrived counts what has just arrived.
func (in *inflow) arrived() {
	if in.count != nil {
		in.count.Add(uint64(len(in.sock.Taken())))
	}
}

// ask sends what o holds on the same connection, which has been idle, and waits
// for what comes then. If something came before, or the connection has ended, it
// fails with errStale, and nothing was sent.
func (in *inflow) ask(o *outflow) error {
	if len(in.unread) > 0 || in.err != nil || in.open && !in.quiet() {
		return errStale
	}
	in.release()
	var err error
	if in.tls != nil {
		if o.push(); o.err != nil {
			return o.err
		}
		err = in.sock.Ask(nil, nil)
	} else {
		err = in.sock.Ask(o.held, o.dropped)
	}
	switch {
	case err == nil:
		in.arrived()
		return nil
	case !errors.Is(err, socket.ErrUnasked):
		return in.ended(err)
	case !in.quiet(): // it may have been a session ticket
		return errStale
	}
	if err := o.flush(); err != nil {
		return err
	}
	return in.fill()
}

// errStale is what a request fails with, nothing of which was sent, because the
// connection that it was given turned out to be of no use.
var errStale = errors.New("the connection was closed while it was idle, or the upstream sent more than the response to an earlier request")

// release gives back the buffer if nothing in it is unread.
func (in *inflow) release() {
	if len(in.unread) > 0 {
		return
	}
	if in.lent {
		in.lent = false
		in.sock.Release()
	}
	in.giveBack()
}

// shrink is called before a wait: what is unread is held in a buffer no larger
// than it needs.
func (in *inflow) shrink() {
	n := len(in.unread)
	switch {
	case n == 0:
		in.release()
	case in.lent:
		in.own = in.pool.Lend(n)
		in.end = copy(*in.own, in.unread)
		in.unread = (*in.own)[:n]
		in.lent = false
		in.sock.Release()
	default:
		if b := in.pool.Shrink(in.own, in.unread); b != in.own {
			in.own, in.end, in.unread = b, n, (*b)[:n]
		}
	}
	in.sock.Shrink()
}

// drop gives back every buffer, and with it what is unread.
func (in *inflow) drop() {
	in.lent = false
	in.giveBack()
	in.sock.Release()
}

func (in *inflow) giveBack() {
	in.unread = nil
	if in.own != nil {
		in.pool.Put(in.own)
		in.own, in.end = nil, 0
	}
}

// quiet reports whether nothing at all has come that was not consumed, and the
// peer has not ended the stream. It does not wait. Session tickets of TLS are
// nothing. What else it finds is lost: the connection is of no use then.
func (in *inflow) quiet() bool {
	if len(in.unread) > 0 || in.err != nil {
		return false
	}
	if in.open {
		if got, err := in.decrypt(); got || err != nil {
			return false
		}
	}
	in.release()
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
		in.release()
	}
}
