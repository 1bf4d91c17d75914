package l7

import (
	"crypto/tls"
	"errors"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// observe notes what the records of all requests of a connection will have in
// common, if there is an access log. Tc is nil for plaintext.
func (c *conn) observe(tc *tls.Conn) {
	if c.server.options.AccessLog == nil {
		return
	}
	r := &accesslog.Record{Kind: accesslog.Request, Listener: c.server.options.Listener, Handshake: c.handshake}
	r.Of(c.intake.Who.Source, c.RemoteAddr())
	if tc != nil {
		state := tc.ConnectionState()
		r.TLS, r.ServerName = accesslog.Describe(&state), state.ServerName
		r.Certificate = c.facts.Session.Identity()
	}
	c.record = r
}

// How an exchange ended whose response is not whole.
const (
	endClientGone = "client gone"
	endShutdown   = "shutdown"
	endCutOff     = "cut off" // the reason says why
	endPanic      = "panic"
)

// record writes what became of the exchange to the access log, unless its
// listener is not to be in it by now.
func (x *exchange) record(code int, elapsed time.Duration, panicked bool) {
	s, n := x.server, &x.noted
	if t := s.options.Table(); t != nil && t.NoAccessLog {
		return
	}
	r := *x.conn.record
	r.Start, r.Duration, r.Code = x.start, elapsed, code
	x.recordRequest(&r)
	if x.action != nil {
		r.Route = x.action.Route
	}
	if x.back != nil {
		r.Upstream = x.back.options.Upstream.Name()
	}
	if x.endpoint != nil {
		r.Endpoint = x.endpoint.Address()
	}
	r.Attempts, r.Reused = n.attempts, n.reused
	if n.made != nil {
		r.UpstreamTLS, r.UpstreamProtocol = n.made.tls, n.protocol
	}
	r.Queued, r.Connect, r.UpstreamHandshake, r.UpstreamHead = n.queued, n.connect, n.handshake, n.head
	r.GRPC, r.GRPCStatus = x.grpc && x.code != 0, n.grpc
	x.mu.Lock()
	cause := x.cause
	x.mu.Unlock()
	reason := n.reason
	if reason == "" && (errors.Is(cause, errTooLong) || errors.Is(cause, errCallDeadline)) {
		reason = certs.ReasonResponseTimeout
	}
	r.Reason = string(reason)
	switch {
	case panicked:
		r.Ended = endPanic // and who knows what the rest is about: it may still be changing
		s.options.AccessLog.Log(&r)
		return
	case n.ended != "":
		r.Ended = n.ended
	case !x.aborted:
	case reason != "":
		r.Ended = endCutOff
	case errors.Is(cause, intake.ErrShutdown):
		r.Ended = endShutdown
	default:
		r.Ended = endClientGone
	}
	if n.upgraded {
		r.Upgrade = x.facts.Request.Upgrade
	}
	r.FromClient, r.ToClient = n.fromClient, n.toClient
	s.options.AccessLog.Log(&r)
}

// recordRequest notes what the client asked for.
func (x *exchange) recordRequest(r *accesslog.Record) {
	if x.facts.Client != x.conn.facts.Client { // a proxy in front has told of another
		r.Peer, r.Client, r.ClientPort = x.conn.RemoteAddr().String(), x.facts.Client, 0
	}
	q := x.facts.Request
	r.RequestID, r.TraceID = x.facts.RequestID, policy.TraceID(x.facts.Request.Fields)
	r.Method, r.Protocol, r.UserAgent = q.Method, protocolName(q), x.noted.userAgent
	r.Host, r.Path = x.facts.Target.Host, x.facts.Target.Path
	if r.Path == "" { // it was refused before it was looked at, or because of that
		r.Host = q.Authority[strings.LastIndexByte(q.Authority, '@')+1:] // before it there may be a password
		if strings.HasPrefix(q.Target, "/") {
			r.Path, _, _ = strings.Cut(q.Target, "?")
		}
	}
}
