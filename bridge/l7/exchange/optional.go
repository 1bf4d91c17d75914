package exchange

import (
	"net"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// Some fronts and backs have these methods beyond their interface. With them, the
// exchange takes a faster path or gives the client more information.

// A socketReader reads from a socket of its own.
type socketReader interface{ Reader() *wire.Reader }

// A socketWriter writes to a socket of its own.
type socketWriter interface{ Writer() *wire.Writer }

// flowBetween returns the flow from a front to a back, or from a back to a front.
// It is the zero Flow if one of them has no socket of its own.
func flowBetween(from, to any) wire.Flow {
	in, ok1 := from.(socketReader)
	out, ok2 := to.(socketWriter)
	if !ok1 || !ok2 {
		return wire.Flow{}
	}
	return wire.Flow{In: in.Reader(), Out: out.Writer()}
}

// A budgeted front bounds the memory of the responses that its client has not read. The
// rules for calling Write apply to its methods.
type budgeted interface {
	// Budget returns the budget for the buffers that hold the response.
	Budget() *socket.Budget

	// ReadLimit returns how many bytes of the response should be read at once.
	ReadLimit() int

	// WriteWhileOpen is Write, but stops where the client's windows let nothing through. It
	// returns how much of p it sent. If that is less than all, Write must be called next.
	WriteWhileOpen(p []byte) (sent int, err error)
}

// charge charges the buffers of b to the budget of f until b's Done, if b has a socket of its
// own and f has a budget. The first part of the response may be as large as the client's
// window.
func charge(f Front, b message.Back) {
	if c := chargedFlowBetween(b, f); c.in != nil {
		c.in.Charge(c.out.Budget())
		c.in.Limit(c.out.ReadLimit())
	}
}

// uncharge ends charge.
func uncharge(f Front, b message.Back) {
	if c := chargedFlowBetween(b, f); c.in != nil {
		c.in.Charge(nil)
	}
}

// A chargedFlow carries a response's body within the budget of its front. The zero
// chargedFlow has no budget.
type chargedFlow struct {
	in  *wire.Reader // nil: the back has no socket of its own
	out budgeted
}

func chargedFlowBetween(b message.Back, f Front) chargedFlow {
	in, ok1 := b.(socketReader)
	out, ok2 := f.(budgeted)
	if !ok1 || !ok2 {
		return chargedFlow{}
	}
	return chargedFlow{in.Reader(), out}
}

// beforeRead is called before a read.
func (c chargedFlow) beforeRead() {
	if c.in != nil && !c.in.Holds() {
		c.in.Limit(c.out.ReadLimit())
	}
}

// write is f.Write. While the client's window is shut, it holds only the rest of p.
func (c chargedFlow) write(f Front, p []byte) error {
	if c.in == nil {
		return f.Write(p)
	}
	n, err := c.out.WriteWhileOpen(p)
	if err != nil || n == len(p) {
		return err
	}
	b := c.in.Detach(p[n:])
	defer c.in.Return(b)
	return f.Write((*b)[:len(p)-n])
}

// A spliceable can pass its upgraded connection to the engine that carries the
// bytes of TCP listeners.
type spliceable interface {
	socketReader
	socketWriter

	// NetConn returns the connection: a socket, or TLS on top of it.
	NetConn() net.Conn

	// Spliced says that the engine has carried the connection to its end, and
	// closed it.
	Spliced()
}

// A tunneler records the protocol that its upgraded connection carries.
type tunneler interface {
	Tunnels(protocol string, back net.Conn, e *upstream.Endpoint)
}

// A waitLimiter has a connection of its own, and can bound how long a write to it
// waits while the peer reads nothing. A stream cannot, because its connection carries
// other streams.
type waitLimiter interface{ LimitWait(d time.Duration) }

// A wholeReader is a front that knows how much of a body is still to come.
type wholeReader interface {
	// Whole reports that the rest of the body has arrived and is short: Read
	// returns it without waiting.
	Whole() bool
}

// An arrivalChecker is a front that can check whether anything has arrived.
type arrivalChecker interface {
	// Arrived reports whether Read would return without waiting, or bytes have
	// arrived that Read can at least examine. The rules for calling Buffered
	// apply.
	Arrived() bool
}

// A bodyAwaiter is a front that can wait for more of the body without a goroutine.
type bodyAwaiter interface {
	// AwaitBody arranges that ready is called once, in another goroutine, as soon as Read
	// does not have to wait, and returns true. If Read does not have to wait now, it
	// returns false. Until ready is called, the front must not be read. A view that Read
	// returned becomes invalid.
	AwaitBody(ready func()) bool
}

// A retainer is a front whose peer may send only as many bytes as the window allows.
// Bytes that the reader keeps count against the window, so it bounds the memory of one
// request's body.
type retainer interface {
	// MayRetain reports whether the window has room for a copy of the bytes that Read
	// returned last. If all is set, the copies may fill the whole window; once the
	// window is Exhausted, the reader must not wait for more. Retain says that the
	// reader keeps the copy until Release. Retain and Exhausted invalidate the bytes
	// that Read returned. The rules for calling Read apply to these methods, except for
	// Release, which can be called at any time.
	MayRetain(all bool) bool
	Retain()
	Exhausted() bool
	Release()
}

// A loginCarrier is a back whose connection may be logged in: see
// Upstream.ExpectLogin.
type loginCarrier interface{ TakesLogin() }

// A roomChecker is a back that can tell whether a small body can be written without
// waiting.
type roomChecker interface{ HasRoom() bool }

// A roomAwaiter is a back that can wait for its upstream without a goroutine.
type roomAwaiter interface {
	// TryWrite is Write, but stops where Write would block. It returns how much of p it
	// sent. If p is empty, it returns why nothing can be sent.
	TryWrite(p []byte) (sent int, err error)

	// TryFlush is Flush without a wait. It reports false if not all could be sent.
	TryFlush() (done bool, err error)

	// AwaitRoom waits, without a goroutine, until TryWrite and TryFlush can send
	// something or fail. With atEnd it waits until End can. Then ready is called once,
	// in a new goroutine. If there is nothing to wait for, AwaitRoom returns false and
	// ready is not called; otherwise it returns true. Until ready is called, nothing may
	// be sent.
	AwaitRoom(atEnd bool, ready func()) bool
}

func hasRoom(b message.Back) bool {
	r, ok := b.(roomChecker)
	return ok && r.HasRoom()
}

// A refusalReporter is a back whose upstream may report that it has not processed a
// request. The exchange then sends the request again, so it must keep the body.
type refusalReporter interface{ ReportsRefusals() bool }

func reportsRefusals(b message.Back) bool {
	d, ok := b.(refusalReporter)
	return ok && d.ReportsRefusals()
}

// A closer is a front that can close its connection after this request. A client that
// sends an ambiguous request may have hidden another request in it.
type closer interface{ CloseAfter() }

// A bodySkipper is a front that can skip the short rest of an unread body, so that its
// connection can be kept.
type bodySkipper interface{ SkipBody() }

// A finisher is a front that can end a response in the middle of its body so that
// the client learns why. Only HTTP/2 fronts can. With others, a gRPC client sees
// a broken response.
type finisher interface {
	Finish(trailer message.Fields) bool
}
