package l7

import (
	"cmp"
	"crypto/tls"
	"errors"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// observe records the facts that all requests of a connection share, if there is an
// access log. tc is nil for plaintext.
func (c *conn) observe(tc *tls.Conn) {
	if c.server.options.AccessLog == nil {
		return
	}
	r := &accesslog.Record{Kind: accesslog.Request, Listener: c.server.options.Listener, Handshake: c.handshake}
	r.SetClient(c.facts.Source, c.RemoteAddr())
	if tc != nil {
		state := tc.ConnectionState()
		r.TLS, r.ServerName = accesslog.Describe(&state), state.ServerName
		r.Certificate = c.facts.Session.Identity()
	}
	c.record = r
}

// The ways in which an exchange ends without a complete response.
const (
	endClientGone = "client gone"
	endShutdown   = "shutdown"
	endPanic      = "panic"
)

// record writes the outcome of the exchange to the access log, unless the listener's
// present table switches the log off.
func (q *request) record(code int, elapsed time.Duration, panicked bool) {
	s, n := q.server, &q.Log
	if t := s.options.Table(); t != nil && t.NoAccessLog {
		return
	}
	r := *q.conn.record
	r.Start, r.Duration, r.Code = q.Start, elapsed, code
	q.recordRequest(&r)
	r.Route, r.Upstream, r.Endpoint = q.Facts.Route, q.Facts.Upstream, q.Facts.Endpoint
	r.Attempts, r.Reused = n.Attempts, n.Reused
	if n.Dial != nil {
		r.UpstreamTLS, r.UpstreamProtocol = n.Dial.TLS, n.Protocol
	}
	r.Queued, r.Connect, r.UpstreamHandshake, r.UpstreamHead = n.Queued, n.Connect, n.Handshake, n.Head
	r.GRPC, r.GRPCStatus = q.GRPC && q.Code() != 0, n.Status
	reason := n.Reason
	if reason == "" && q.RanOut() {
		reason = certs.ReasonResponseTimeout
	}
	r.Reason = string(reason)
	failure := q.conn.intake.Member.Failure()
	decided := endDecided(cmp.Or(q.conn.cutCause(), q.Cause()))
	switch {
	case panicked:
		r.Ended = endPanic // other goroutines may still change the other fields
		s.options.AccessLog.Log(&r)
		return
	case failure != nil && q.Cause() == failure:
		r.Ended, r.Reason = string(splice.Unverified), string(failure.Reason)
	case decided != "" && (n.Ended == string(splice.Drained) || n.Ended == exchange.EndCutOff && reason == ""):
		r.Ended = decided // a tunnel ended
	case n.Ended != "":
		r.Ended = n.Ended
	case !q.Aborted():
	case reason != "":
		r.Ended = exchange.EndCutOff
	case decided != "":
		r.Ended = decided
	default:
		r.Ended = endClientGone
	}
	if n.Upgraded {
		r.Upgrade = q.Facts.Request.Upgrade
	}
	r.FromClient, r.ToClient = n.FromClient, n.ToClient
	s.options.AccessLog.Log(&r)
}

// endDecided returns how the log names an end that the gateway decided on; "": the
// gateway did not decide on the end.
func endDecided(cause error) string {
	switch {
	case errors.Is(cause, intake.ErrShutdown):
		return endShutdown
	case errors.Is(cause, live.ErrClosed):
		return string(splice.ClosedByOperator)
	}
	return ""
}

// client returns the client that routes may match, or nil without a verified certificate.
// Under validity.Report a client may stay connected although it no longer verifies.
func (c *conn) client() *route.Client {
	if !c.intake.Member.Verified() {
		return nil
	}
	return c.facts.Session.Client()
}

// recordRequest records the client's request.
func (q *request) recordRequest(r *accesslog.Record) {
	if q.Facts.Client != q.conn.facts.Client { // a trusted proxy named another client
		r.Peer, r.Client, r.ClientPort = q.conn.RemoteAddr().String(), q.Facts.Client, 0
	}
	f, asked := &q.Facts, q.Facts.Request
	r.RequestID, r.TraceID = f.RequestID, policy.TraceID(asked.Fields)
	r.Method, r.Protocol, r.UserAgent = asked.Method, protocolName(asked), q.userAgent
	r.Host, r.Path = f.Target.Host, f.Target.Path
	if r.Path == "" { // the target was not parsed, or is invalid
		r.Host = asked.Authority[strings.LastIndexByte(asked.Authority, '@')+1:] // without the user information, which may hold a password
		if strings.HasPrefix(asked.Target, "/") {
			r.Path, _, _ = strings.Cut(asked.Target, "?")
		}
	}
}
