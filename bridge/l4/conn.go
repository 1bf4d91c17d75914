package l4

import (
	"crypto/tls"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A conn is one client's connection, from accept to close.
type conn struct {
	intake.Conn
	server *Server
	client *socket.Socket
	start  time.Time

	stage  atomic.Int32 // see Describe
	secure *tls.Conn    // the client's TLS; nil: plaintext, passthrough, or see late
	late   *tls.Conn    // the client's TLS, if the upstream greeted the client before it
	back   net.Conn     // the connection to the endpoint

	// Used by serve's goroutine until the splice starts, and by the splice's callbacks
	// afterward.
	endpoint *upstream.Endpoint
	turn     upstream.Turn
	outcome  outcome
	details  *logDetails     // nil without an access log
	refusal  *intake.Refusal // the refusal of a TLS handshake after the upstream's greeting
	greeted  uint64          // bytes of the greeting, which no splice carried

	mu       sync.Mutex
	splice   *splice.Splice // nil until it starts
	cut      *cut           // nil: the connection was not cut
	ageTimer *time.Timer    // cuts the connection when it is too old, or nil
	ended    bool           // the connection has ended: it needs no timer
}

// An outcome is what the logs report about a connection.
type outcome struct {
	route, upstream      string
	toUpstream, toClient uint64
	how                  splice.Ending
	err                  error
	reason               certs.Reason // the reason of err
}

// Endings of connections that never reached an upstream, except those of package
// intake.
const (
	endNoUpstream splice.Ending = "no upstream"
	endDial       splice.Ending = "upstream unreachable"
	endPanic      splice.Ending = "internal error"
	endCanceled   splice.Ending = "statement canceled"
)

// serve sets the connection up. It returns when a splice carries the bytes, or when the
// connection is closed.
func (c *conn) serve(t *Table) {
	spliced := false
	defer func() {
		if p := recover(); p != nil {
			c.outcome.how = endPanic
			c.server.intake.Panicked(&c.Conn, p)
			spliced = c.isSpliced() // if so, spliceEnded finishes the connection
		}
		if !spliced {
			c.finish()
		}
	}()
	spliced = c.bridge(t)
}

// recordRefusal records why the connection was refused.
func (c *conn) recordRefusal(r *intake.Refusal) {
	c.outcome.how, c.outcome.reason, c.outcome.err = splice.Ending(r.Ending), r.Reason, r.Err
}

// finish counts and logs a closed connection.
func (c *conn) finish() {
	defer c.server.intake.Done()
	defer c.server.intake.Leave(&c.Conn)
	c.stopTimer()
	c.turn.End()
	took := time.Since(c.start)
	c.server.count.durations.Observe(took)
	if c.details != nil {
		c.record(took)
	}
	log := c.server.log
	if !log.IsDebug() {
		return
	}
	o := &c.outcome
	endpoint := ""
	if c.endpoint != nil {
		endpoint = c.endpoint.Address()
	}
	args := []any{
		"client", c.Name(), "route", o.route, "upstream", o.upstream, "endpoint", endpoint,
		"to_upstream", o.toUpstream, "to_client", o.toClient, "duration", took, "ended", string(o.how),
	}
	if o.err != nil {
		args = append(args, "reason", string(o.reason), "error", o.err)
	}
	log.Debug("connection closed", args...)
}

// bridge completes the client's handshake, chooses and dials an upstream, and starts
// the splice. It reports whether the splice started; otherwise the connection is
// closed.
func (c *conn) bridge(t *Table) bool {
	s, o := c.server, &c.outcome
	rules := t.rules()
	if r := s.intake.Announce(&c.Conn, &rules); r != nil {
		c.recordRefusal(r)
		c.client.Reset()
		return false
	}
	var serverName string
	started := time.Now()
	deadline := started.Add(rules.Timeout())
	if t.Peek {
		hello, err := c.peek(deadline)
		if err != nil {
			reason := helloReason(err)
			if reason == certs.ReasonUnrecognizedName {
				c.alert(alertUnrecognizedName)
			}
			c.recordRefusal(s.intake.Refuse(&c.Conn, c.client, reason, err))
			return false
		}
		serverName = hello.ServerName
	}
	var client net.Conn = c.client
	var certificate *route.Client
	opening, r := c.open(t, deadline)
	if r != nil {
		c.recordRefusal(r)
		return false
	}
	encrypted := t.TLS != nil && opening.Next == starttls.TLS
	if !encrypted && !t.Peek && opening.Next != starttls.Greeting {
		s.intake.Verified(&c.Conn, c.client, intake.Plaintext)
	}
	if encrypted && !t.Passes(serverName) {
		tc := t.TLS.Conn(c.client)
		peer, r := s.intake.Handshake(&c.Conn, t.TLS, tc, c.client, deadline)
		if r == nil {
			r = c.checkALPN(tc, opening)
		}
		if r != nil {
			c.recordRefusal(r)
			return false
		}
		s.intake.Verified(&c.Conn, c.client, peer)
		client, serverName, c.secure = tc, peer.ServerName, tc
		if len(peer.Certificates) > 0 {
			certificate = route.NewClient(peer.Certificates[0])
		}
		if c.details != nil {
			c.details.handshakeDone(tc, time.Since(started))
		}
	}

	if c.details != nil {
		c.details.serverName = serverName
	}
	host := hostOf(serverName)
	target := t.target(host, certificate)
	if client != c.client && !t.TLS.Serves(serverName, host) {
		// An SNI such as "a.test:443" and the host in it belong to different TLS
		// policies. This client has not passed the client authentication of the host's
		// policy.
		target = nil
	}
	if decrypted := client != c.client; t.Peek && (target == nil || target.Passthrough == decrypted) {
		if !decrypted {
			// A TLS client gets a TLS alert: no route has its server name.
			c.alert(alertUnrecognizedName)
		}
		target = nil // decrypted bytes must never go to a passthrough upstream
	}
	if target != nil {
		o.route = target.Route
	}
	var u *upstream.Upstream
	if target != nil {
		u = target.Upstreams.Pick()
	}
	if u == nil {
		s.count.noUpstream.Add(1)
		o.how = endNoUpstream
		if t.Peek {
			c.client.LingerClose() // a reset could overtake the alert
		} else {
			c.client.Reset()
		}
		return false
	}
	o.upstream = u.Name()
	c.stage.Store(chosen)

	ctx := s.intake.Context()
	if u.Announces() {
		ctx = upstream.Announce(ctx, c.Announced.Source, c.Announced.Destination)
	}
	var later *starttls.Client // the client of a protocol in which the upstream greets, or nil
	if u.Starttls().ServerGreets() || t.Starttls.ServerGreets() {
		later = c.greetLater(t, &rules, client)
		ctx = starttls.WithClient(ctx, later)
	}
	if c.details != nil {
		ctx = upstream.WithTrace(ctx, &c.details.trace)
	}
	var key upstream.Key
	if u.Hash().ClientAddress {
		key = upstream.KeyOfAddress(c.Addr)
	}
	c.turn.Begin(u, key)
	c.turn.Bound(target.Attempts)
	back, endpoint, err := c.turn.Dial(ctx, upstream.Stream, host)
	if err != nil {
		if r := c.refused(later); r != nil {
			c.recordRefusal(r)
			return false
		}
		o.how, o.err, o.reason = endDial, err, upstream.ReasonOf(err)
		if o.reason == certs.ReasonClientFailed {
			o.how = splice.ClientFailed
		} else {
			s.count.dialFailures.Add(1)
		}
		c.client.Reset()
		return false
	}
	handedOver := false
	defer func() { // even after a panic, because serve cannot access back
		if !handedOver {
			socket.Of(back).Reset()
		}
	}()
	if opening.Next == starttls.Cancel {
		c.endpoint = endpoint
		o.toUpstream, o.how = uint64(len(opening.Read)), endCanceled
		relayCancel(back, opening.Read, rules.Timeout())
		c.client.Close()
		return false
	}
	engine, err := s.splices.Engine()
	if err != nil {
		o.how, o.err, o.reason = splice.ClientFailed, err, certs.Classify(err)
		c.client.Reset()
		return false
	}
	c.endpoint = endpoint
	if c.details != nil {
		c.details.connected(back)
	}
	greeting, err := c.join(ctx, t, back, opening, rules.Timeout())
	if err != nil {
		c.joinFailed(later, err)
		return false
	}
	if later != nil {
		client = later.Conn()
		if t.Starttls.ServerGreets() && !later.Secure() {
			s.intake.Verified(&c.Conn, c.client, intake.Plaintext)
		}
	}
	if err := c.greet(client, greeting, rules.Timeout()); err != nil {
		o.how, o.err, o.reason = splice.ClientFailed, err, certs.ReasonClientFailed
		c.client.Reset()
		return false
	}
	options := splice.Options{
		Idle: t.idle(u), Linger: t.linger(),
		ToUpstream: &s.count.toUpstream, ToClient: &s.count.toClient,
		FirstReply: c.firstReply,
		Done:       c.spliceEnded,
		Panicked: func(value any, stack []byte) {
			go s.intake.LogPanic(&c.Conn, value, stack) // logging may block
		},
	}
	handedOver = true
	c.back = back
	c.stage.Store(bridged)
	c.setSplice(engine.Start(client, back, options))
	c.limitAge(t.MaxAge, u.StreamAge())
	return true
}

// greet sends the client a greeting in place of the server's own.
func (c *conn) greet(client net.Conn, greeting []byte, timeout time.Duration) error {
	if len(greeting) == 0 {
		return nil
	}
	c.endpoint.NoteReply() // the greeting was created after the endpoint's reply over TLS
	c.greeted = uint64(len(greeting))
	_ = client.SetWriteDeadline(time.Now().Add(timeout)) // fails only on a closed connection, and then Write fails too
	if _, err := client.Write(greeting); err != nil {
		return err
	}
	return client.SetWriteDeadline(time.Time{})
}

// firstReply runs when the upstream's first bytes are delivered. It must not block.
func (c *conn) firstReply() {
	took := time.Since(c.start)
	c.server.count.firstBytes.Observe(took)
	if c.details != nil {
		c.details.firstByte = took
	}
	c.endpoint.NoteReply()
}

// spliceEnded runs when the splice has ended. It must not block.
func (c *conn) spliceEnded(r splice.Result) {
	o := &c.outcome
	o.how, o.err = r.Ending, r.Cause
	o.toUpstream, o.toClient = r.ToUpstream, r.ToClient+c.greeted
	refused := r.ToClient == 0 && certs.IsAlert(r.UpstreamErr)
	if refused {
		// The upstream refused the gateway after the gateway's side of the handshake
		// had completed, as TLS 1.3 servers refuse a client certificate. The client's
		// first bytes may have been sent by then, so trying another endpoint is not
		// safe.
		o.err = r.UpstreamErr
	}
	o.reason = r.Reason()
	if certs.Classify(r.UpstreamErr) == certs.ReasonRenegotiationRequested {
		o.err, o.reason = r.UpstreamErr, certs.ReasonRenegotiationRequested
	}
	if refused {
		o.reason = certs.Classify(o.err)
	}
	if o.reason == "" && !c.server.log.IsDebug() {
		c.finishSplice(refused)
		return
	}
	go c.finishSplice(refused) // in a goroutine, because logging may block
}

// finishSplice reports the end of a spliced connection to its endpoint, and finishes
// the connection.
func (c *conn) finishSplice(refused bool) {
	defer func() {
		if p := recover(); p != nil {
			c.server.intake.LogPanic(&c.Conn, p, debug.Stack())
		}
	}()
	defer c.finish()
	if refused {
		c.endpoint.NoteFailure(c.outcome.err)
	} else {
		c.endpoint.NoteStreamEnd(c.outcome.reason, c.outcome.err)
	}
}

// setSplice records that sp owns the connection, and cuts sp if the connection was cut
// meanwhile.
func (c *conn) setSplice(sp *splice.Splice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.splice = sp
	if c.cut != nil {
		sp.Cut(c.cut.how, c.cut.cause)
	}
}

// isSpliced reports whether a splice owns the connection.
func (c *conn) isSpliced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.splice != nil
}

// Drain implements intake.Owner. A connection continues until its peers end it.
func (c *conn) Drain() {}

// Work implements intake.Owner.
func (c *conn) Work() (requests int, busy bool) { return 0, true }

// Cut implements intake.Owner. It ends the connection at once, in any state.
func (c *conn) Cut(cause error) {
	switch failure, unverified := cause.(*certs.VerifyError); {
	case unverified:
		c.end(cut{splice.Unverified, failure})
	case cause == live.ErrClosed:
		c.end(cut{how: splice.ClosedByOperator})
	default:
		c.end(cut{how: splice.Shutdown})
	}
}

// A cut says why a connection was ended in any state.
type cut struct {
	how   splice.Ending
	cause error
}

func (c *conn) end(ending cut) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut == nil {
		c.cut = &ending
	}
	if c.splice != nil {
		c.splice.Cut(ending.how, ending.cause)
	} else {
		c.client.Reset()
	}
}

// limitAge ends the connection when it reaches the maximum age of a client's connection
// or, counted from now, of a connection to the upstream. 0: no limit.
func (c *conn) limitAge(client, upstream time.Duration) {
	var end time.Time
	if age := intake.Age(client); age > 0 {
		end = c.start.Add(age)
	}
	if age := intake.Age(upstream); age > 0 {
		if at := time.Now().Add(age); end.IsZero() || at.Before(end) {
			end = at
		}
	}
	if !end.IsZero() {
		c.endAt(end)
	}
}

// endAt ends the connection at a time, because of its age.
func (c *conn) endAt(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.ageTimer = time.AfterFunc(time.Until(at), func() { c.end(cut{how: splice.Aged}) })
	}
}

// stopTimer is called when the connection has ended.
func (c *conn) stopTimer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.ageTimer != nil {
		c.ageTimer.Stop()
	}
}
