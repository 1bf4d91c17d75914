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
	Drained  Ending = "drained" // somebody else closed a side, such as the Tracker

	ClientReset       Ending = "client reset"
	ClientTruncated   Ending = "client truncated" // TLS without close_notify
	ClientFailed      Ending = "client failed"
	UpstreamReset     Ending = "upstream reset"
	UpstreamTruncated Ending = "upstream truncated"
	UpstreamFailed    Ending = "upstream failed"

	Panicked Ending = "internal error" // carrying its bytes, or a callback, panicked
)

// Options are what a splice goes by. Idle and Linger must be given.
type Options struct {
	// Idle is how long nothing may move in either direction, and how long a
	// side may leave what it is sent unread.
	Idle time.Duration

	// Linger is how long, once one side has ended its stream, the other may
	// stay silent; and how long, once a stream has broken, a side may take
	// nothing of what is still to be delivered to it. It is at most Idle.
	Linger time.Duration

	// The counters are added to as the kernel takes bytes to deliver. Nil counts
	// nothing.
	ToUpstream, ToClient *atomic.Uint64

	// FirstReply is called as the upstream's first bytes are delivered, Done
	// when the splice has ended and both connections are closed. They are
	// called by whoever carries the bytes, for this connection or others, and
	// so must not block. Nil: nobody is told.
	FirstReply func()
	Done       func(Result)

	// Panicked is called when carrying the bytes, or one of the functions above,
	// has panicked: that ends this splice and no other. It must not block. Nil:
	// nobody is told.
	Panicked func(value any, stack []byte)
}

// A Result is what became of a splice.
type Result struct {
	How   Ending
	Cause error // of a bad end

	ToUpstream, ToClient uint64 // bytes that the kernel took to deliver

	// UpstreamErr is what reading from the upstream failed with, whether or
	// not that was what ended the splice.
	UpstreamErr error
}

// A Splice is one pair of connections. It owns both.
type Splice struct {
	options Options
	engine  *Engine

	// mu is held by whoever carries bytes, which never blocks, or ends the
	// splice. A side's descriptor may be used only under it, while not closed.
	mu                   sync.Mutex
	client, upstream     side
	toUpstream, toClient direction
	watch                watch

	how     Ending // the first that was noted
	cause   error
	closing bool // nothing more is read; what was read is still delivered
	closed  bool
	told    bool // that it has ended

	place place // among what waits for its descriptors
}

// Start takes over two connections, each a *socket.Socket or a *tls.Conn over
// one whose handshake is complete, and carries their bytes from now on. It does
// not wait.
func (e *Engine) Start(client, upstream net.Conn, o Options) *Splice {
	s := &Splice{options: o, engine: e}
	s.client = side{reset: ClientReset, truncated: ClientTruncated, failed: ClientFailed}
	s.upstream = side{reset: UpstreamReset, truncated: UpstreamTruncated, failed: UpstreamFailed}
	s.toUpstream = direction{from: &s.client, to: &s.upstream, back: &s.toClient, moves: &s.watch.toUpstream, total: o.ToUpstream}
	s.toClient = direction{from: &s.upstream, to: &s.client, back: &s.toUpstream, moves: &s.watch.toClient, total: o.ToClient, first: o.FirstReply}
	s.watch.idle, s.watch.linger = o.Idle, min(o.Linger, o.Idle)

	s.mu.Lock()
	err := s.client.takeOver(s, client)
	if other := s.upstream.takeOver(s, upstream); err == nil {
		err = other
	}
	if err == nil {
		s.watch.start(e.now(), s.look)
		err = e.enter(s)
	}
	if err != nil {
		s.note(s.upstream.called(err), err)
		s.close()
	}
	ended := s.ended()
	s.mu.Unlock()
	if ended {
		go s.tell()
	}
	return s
}

// Run is Start that waits for the end. Closing either connection's Socket ends
// it early.
func (e *Engine) Run(client, upstream net.Conn, o Options) Result {
	results := make(chan Result, 1)
	done := o.Done
	o.Done = func(r Result) {
		if done != nil {
			done(r)
		}
		results <- r
	}
	e.Start(client, upstream, o)
	return <-results
}

// Cut ends the splice, as how and for cause say unless it has ended already:
// both sides are closed when it returns, with a reset if the stream towards
// them is incomplete. Done is called by another goroutine.
func (s *Splice) Cut(how Ending, cause error) {
	s.mu.Lock()
	s.note(how, cause)
	s.close()
	ended := s.ended()
	s.mu.Unlock()
	if ended {
		s.client.sock.Closed()
		s.upstream.sock.Closed()
		go s.tell() // Done may take locks that the caller holds
	}
}

// note says how the splice ended, unless that was said before: what follows
// the first bad end is its consequence.
func (s *Splice) note(how Ending, cause error) {
	if s.how == "" {
		s.how, s.cause = how, cause
	}
}

// close closes both sides.
func (s *Splice) close() {
	if s.closed {
		return
	}
	s.closed = true
	s.watch.stop()
	s.engine.leave(s)
	s.client.close()
	s.upstream.close()
}

// ended reports, once, that the splice has ended: the caller is to tell, when
// mu is released.
func (s *Splice) ended() bool {
	if !s.closed || s.told {
		return false
	}
	s.told = true
	return true
}

// tell tells whoever wants to know that the splice has ended.
func (s *Splice) tell() {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
		}
	}()
	s.client.sock.Closed()
	s.upstream.sock.Closed()
	if s.options.Done != nil {
		s.options.Done(Result{
			How: s.how, Cause: s.cause,
			ToUpstream: s.toUpstream.bytes, ToClient: s.toClient.bytes,
			UpstreamErr: s.toClient.failure,
		})
	}
}

// takeOver makes conn the side's. It is the Socket's Carrier from here on.
func (x *side) takeOver(s *Splice, conn net.Conn) error {
	x.splice = s
	x.fd = -1
	x.sock = socket.Of(conn)
	x.tls, _ = conn.(*tls.Conn)
	raw, early, err := x.sock.HandOver(x)
	if err != nil {
		return err
	}
	x.early, x.readable = early, true
	return x.adopt(raw)
}
