package l4

import (
	"errors"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A conn is one client's connection, from accept to close.
type conn struct {
	intake.Conn
	server *Server
	client *socket.Socket
	start  time.Time

	// Of whoever serves the connection now: its goroutine while it is made,
	// then the splice.
	endpoint *upstream.Endpoint
	turn     upstream.Turn
	outcome  outcome
	seen     *seen // nil: there is no access log

	mu     sync.Mutex
	splice *splice.Splice // nil until there is an upstream
	isCut  bool
}

// An outcome is what the log says of a connection.
type outcome struct {
	route, upstream      string
	toUpstream, toClient uint64
	how                  splice.Ending
	err                  error
	reason               certs.Reason // of err
}

// Ends of connections that never reached an upstream, but for those of intake.
const (
	endNoUpstream splice.Ending = "no upstream"
	endDial       splice.Ending = "upstream unreachable"
	endPanic      splice.Ending = "internal error"
)

// serve makes the connection: it returns when a splice carries its bytes, or
// when it is closed.
func (c *conn) serve(t *Table) {
	spliced := false
	defer func() {
		if p := recover(); p != nil {
			c.outcome.how = endPanic
			c.server.intake.Panicked(&c.Conn, p)
			spliced = c.isSpliced() // then it is finished by the splice's end
		}
		if !spliced {
			c.finish()
		}
	}()
	spliced = c.bridge(t)
}

// refused notes that the connection was refused.
func (c *conn) refused(r *intake.Refusal) {
	c.outcome.how, c.outcome.reason, c.outcome.err = splice.Ending(r.How), r.Reason, r.Err
}

// finish counts and logs what became of the connection, which is closed.
func (c *conn) finish() {
	defer c.server.intake.Done()
	defer c.server.intake.Leave(&c.Conn)
	c.turn.End()
	took := time.Since(c.start)
	c.server.count.durations.Observe(took)
	if c.seen != nil {
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

// bridge takes the connection through its life: the client's handshake, the
// choice of an upstream, the dial and the splice, to which it hands it over. It
// returns false if it did not come to that.
func (c *conn) bridge(t *Table) bool {
	s, o := c.server, &c.outcome
	rules := t.rules()
	if r := s.intake.Announce(&c.Conn, &rules); r != nil {
		c.refused(r)
		c.client.Reset()
		return false
	}
	var serverName string
	begun := time.Now()
	deadline := begun.Add(rules.Timeout())
	if t.Peek {
		hello, err := c.peek(deadline)
		if err != nil {
			c.refused(s.intake.Refuse(c.client, helloReason(err), err))
			return false
		}
		serverName = hello.ServerName
	}
	var client net.Conn = c.client
	if t.TLS != nil && !t.Passes(serverName) {
		tc := t.TLS.Conn(c.client)
		if r := s.intake.Handshake(tc, c.client, deadline); r != nil {
			c.refused(r)
			return false
		}
		client, serverName = tc, tc.ConnectionState().ServerName
		if c.seen != nil {
			c.seen.handshook(tc, time.Since(begun))
		}
	}

	if c.seen != nil {
		c.seen.serverName = serverName
	}
	host := hostOf(serverName)
	target := t.target(host)
	if decrypted := client != c.client; t.Peek && (target == nil || target.Passthrough == decrypted) {
		if !decrypted {
			// Whoever speaks TLS is told in TLS that nobody here is called so.
			c.alert(alertUnrecognizedName)
		}
		target = nil // what is decrypted is never sent where TLS is to go
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

	ctx := s.intake.Context()
	if u.Announces() {
		ctx = upstream.Announce(ctx, c.Who.Source, c.Who.Destination)
	}
	if c.seen != nil {
		ctx = upstream.WithTrace(ctx, &c.seen.trace)
	}
	var key upstream.Key
	if u.Hash().ClientAddress {
		key = upstream.KeyOfAddress(c.Addr)
	}
	c.turn.Begin(u, key)
	c.turn.Bound(target.Attempts)
	back, endpoint, err := c.turn.Dial(ctx, upstream.Stream, host)
	if err != nil {
		s.count.dialFailures.Add(1)
		o.how, o.err, o.reason = endDial, err, upstream.ReasonOf(err)
		c.client.Reset()
		return false
	}
	engine, err := s.splices.Engine()
	if err != nil {
		o.how, o.err, o.reason = splice.ClientFailed, err, certs.Classify(err)
		socket.Of(back).Reset()
		c.client.Reset()
		return false
	}
	c.endpoint = endpoint
	if c.seen != nil {
		c.seen.connected(back)
	}
	c.setSplice(engine.Start(client, back, splice.Options{
		Idle: t.idle(u), Linger: t.linger(),
		ToUpstream: &s.count.toUpstream, ToClient: &s.count.toClient,
		FirstReply: c.replied,
		Done:       c.spliced,
		Panicked: func(value any, stack []byte) {
			go s.intake.LogPanic(&c.Conn, value, stack) // as logging may block
		},
	}))
	return true
}

// replied is told that the upstream's first bytes are delivered. It must not block.
func (c *conn) replied() {
	took := time.Since(c.start)
	c.server.count.firstBytes.Observe(took)
	if c.seen != nil {
		c.seen.firstByte = took
	}
	c.endpoint.NoteReply()
}

// spliced is told what became of the splice. It must not block.
func (c *conn) spliced(r splice.Result) {
	o := &c.outcome
	o.how, o.err = r.How, r.Cause
	o.toUpstream, o.toClient = r.ToUpstream, r.ToClient
	refused := r.ToClient == 0 && isAlert(r.UpstreamErr)
	if refused {
		// The upstream refused us after our side of the handshake was over,
		// as TLS 1.3 servers refuse a client certificate. The client's first
		// bytes are under way by then, so there is no trying elsewhere.
		o.err = r.UpstreamErr
	}
	o.reason = r.How.Reason()
	if refused {
		o.reason = certs.Classify(o.err)
	}
	if o.reason == "" && !c.server.log.IsDebug() {
		c.ended(refused)
		return
	}
	go c.ended(refused) // as logging may block
}

// ended tells the endpoint what became of a connection that was spliced, and
// finishes it.
func (c *conn) ended(refused bool) {
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

// isAlert reports whether err is an alert that the peer sent.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// setSplice hands the connection to sp, which it may have to cut at once.
func (c *conn) setSplice(sp *splice.Splice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.splice = sp
	if c.isCut {
		sp.Cut(splice.Shutdown, nil)
	}
}

// isSpliced reports whether a splice owns the connection.
func (c *conn) isSpliced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.splice != nil
}

// Drain is the Owner's: a connection goes on until its peers end it.
func (c *conn) Drain() {}

// Cut is the Owner's: it ends the connection in whatever state it is.
func (c *conn) Cut(error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = true
	if c.splice != nil {
		c.splice.Cut(splice.Shutdown, nil)
	} else {
		c.client.Reset()
	}
}
