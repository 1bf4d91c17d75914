package splice

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// An Ending says how a splice ended, for the log.
type Ending string

const (
	Closed   Ending = "closed" // both sides ended their stream
	Idle     Ending = "idle"
	Linger   Ending = "linger"
	Shutdown Ending = "shutdown"
	Drained  Ending = "drained" // another owner closed a side, such as the upstream's Tracker

	ClosedByOperator Ending = "closed by operator"

	// Aged says that the connection has reached its maximum age.
	Aged Ending = "max age"

	// Unverified says that the peer of a side no longer verifies, and its grace
	// period has passed.
	Unverified Ending = "no longer verified"

	ClientReset       Ending = "client reset"
	ClientTruncated   Ending = "client truncated" // TLS without close_notify
	ClientFailed      Ending = "client failed"
	UpstreamReset     Ending = "upstream reset"
	UpstreamTruncated Ending = "upstream truncated"
	UpstreamFailed    Ending = "upstream failed"

	Panicked Ending = "internal error" // the loop or a callback panicked
)

// Options configure a splice. Idle and Linger are required.
type Options struct {
	// Idle is how long a splice may move no bytes in either direction, and how long
	// a side may leave its bytes unread.
	Idle time.Duration

	// Linger is how long the second side may stay silent after the first has ended its
	// stream. After a stream has broken, it is how long a side may accept none of the
	// bytes that the splice still delivers to it. Linger is at most Idle.
	Linger time.Duration

	// The splice adds to these counters as the kernel accepts bytes for delivery. Nil
	// counts nothing.
	ToUpstream, ToClient *atomic.Uint64

	// FirstReply is called when the upstream's first bytes are delivered, Done when the
	// splice has ended and both connections are closed. The loop calls them between
	// other connections, so they must not block. Either may be nil.
	FirstReply func()
	Done       func(Result)

	// Panicked is called when the loop panics while it carries this splice, or when
	// FirstReply or Done panics. A panic ends only this splice. Panicked must not
	// block; nil ignores the panic.
	Panicked func(value any, stack []byte)
}

// A Result describes how a splice ended.
type Result struct {
	Ending Ending
	Cause  error // nil after a clean end

	ToUpstream, ToClient uint64 // bytes that the kernel accepted for delivery

	// UpstreamErr is the error of reading from the upstream, even if something else
	// ended the splice.
	UpstreamErr error
}

// A Splice is one pair of connections. It owns both.
type Splice struct {
	options Options
	engine  *Engine

	// mu guards everything below. The goroutine that carries bytes holds mu and does
	// not block while it holds it. A side's descriptor may be used only under mu,
	// while the side is open.
	mu                   sync.Mutex
	client, upstream     side
	toUpstream, toClient direction
	watch                watch

	ending      Ending // the first that setEnding recorded
	cause       error
	closing     bool // reading has stopped; bytes already read are still delivered
	closed      bool
	doneClaimed bool // Done was called, or is about to be

	registration registration // the splice's entry in a loop
	resumeTimer  *time.Timer  // ends a pause; nil until the first
}

// Start takes ownership of two connections and carries their bytes. Each is a
// *socket.Socket, or a *tls.Conn over one whose handshake is complete. Closing either
// Socket ends the splice early. Start does not block.
func (e *Engine) Start(client, upstream net.Conn, o Options) *Splice {
	s := e.newSplice(client, upstream, o)
	if s.begin(client, upstream) {
		go s.notifyDone()
	}
	return s
}

// newSplice returns a splice that does not own the connections yet.
func (e *Engine) newSplice(client, upstream net.Conn, o Options) *Splice {
	s := &Splice{options: o, engine: e}
	s.client = side{splice: s, sock: socket.Of(client), fd: -1, reset: ClientReset, truncated: ClientTruncated, failed: ClientFailed}
	s.upstream = side{splice: s, sock: socket.Of(upstream), fd: -1, reset: UpstreamReset, truncated: UpstreamTruncated, failed: UpstreamFailed}
	s.toUpstream = direction{from: &s.client, to: &s.upstream, reverse: &s.toClient, progress: &s.watch.toUpstream, total: o.ToUpstream}
	s.toClient = direction{from: &s.upstream, to: &s.client, reverse: &s.toUpstream, progress: &s.watch.toClient, total: o.ToClient, onFirst: o.FirstReply}
	s.watch.idle, s.watch.linger = o.Idle, min(o.Linger, o.Idle)
	return s
}

// begin takes ownership of the connections and starts to wait for their bytes. It
// reports whether the splice has already ended.
func (s *Splice) begin(client, upstream net.Conn) (ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeOver(client, upstream)
	return s.claimDone()
}

func (s *Splice) takeOver(client, upstream net.Conn) {
	defer s.recoverPanic()
	err := s.client.takeOver(client)
	if other := s.upstream.takeOver(upstream); err == nil {
		err = other
	}
	if err == nil {
		s.watch.start(s.engine.now(), s.look)
		err = s.engine.enter(s)
	}
	if err != nil {
		s.setEnding(s.upstream.endingOf(err), err)
		s.close()
	}
}

// Cut ends the splice, unless it has already ended, and records ending and cause. Both
// sides are closed when Cut returns, with a reset if the stream toward them is
// incomplete. Another goroutine calls Done.
func (s *Splice) Cut(ending Ending, cause error) {
	s.mu.Lock()
	s.setEnding(ending, cause)
	s.close()
	ended := s.claimDone()
	s.mu.Unlock()
	if ended {
		s.client.sock.Closed()
		s.upstream.sock.Closed()
		go s.notifyDone() // Done may take locks that the caller holds
	}
}

// setEnding records how the splice ended. The first call counts, because later
// failures are its consequences.
func (s *Splice) setEnding(ending Ending, cause error) {
	if s.ending == "" {
		s.ending, s.cause = ending, cause
	}
}

// close closes both sides.
func (s *Splice) close() {
	if s.closed {
		return
	}
	s.closed = true
	s.watch.stop()
	if s.resumeTimer != nil {
		s.resumeTimer.Stop()
	}
	s.engine.leave(s)
	s.client.close()
	s.upstream.close()
}

// claimDone reports, once, that the splice has ended. The caller must release mu and
// call notifyDone.
func (s *Splice) claimDone() bool {
	if !s.closed || s.doneClaimed {
		return false
	}
	s.doneClaimed = true
	return true
}

// notifyDone runs the Sockets' OnClose callbacks and Done.
func (s *Splice) notifyDone() {
	defer func() {
		if p := recover(); p != nil {
			s.reportPanic(p)
		}
	}()
	if s.ending == Panicked {
		// A panic in Start may have left a connection that the splice does not own.
		s.client.sock.Reset()
		s.upstream.sock.Reset()
	}
	s.client.sock.Closed()
	s.upstream.sock.Closed()
	if s.options.Done != nil {
		s.options.Done(Result{
			Ending: s.ending, Cause: s.cause,
			ToUpstream: s.toUpstream.bytes, ToClient: s.toClient.bytes,
			UpstreamErr: s.toClient.failure,
		})
	}
}

// takeOver moves conn's descriptor to the side, which becomes the Carrier of conn's
// Socket.
func (x *side) takeOver(conn net.Conn) error {
	if x.tls, _ = conn.(*tls.Conn); x.tls != nil {
		socket.MeterOf(x.sock).Limit()
	}
	raw, early, err := x.sock.HandOver(x)
	if err != nil {
		return err
	}
	x.early, x.readable, x.conn = early, true, raw
	return x.setDescriptor(raw)
}
