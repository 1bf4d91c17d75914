package l7

import (
	"cmp"
	"errors"
	"runtime/debug"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
)

// A request is one request of a client with its outcome: its exchange, and the
// server's decisions about it.
type request struct {
	exchange.Exchange
	server *Server
	conn   *conn
	table  *Table
	action *Action
	pass   limit.Pass // the request's pass through the listener's limits

	match    matcher
	lookup   func(name string) []string // the method value match.values
	spelling policy.Spelling            // selects the client's fields to drop

	tunnelFront *front1 // the front, if it is an HTTP/1 connection

	pools     *backs.Pools // the upstream's pools; nil: the request is not forwarded
	need      backs.Need   // describes the connection to request; reused
	userAgent string       // for the access log
}

// requestPool lends requests, whose parts are reused.
type requestPool struct{ pool sync.Pool }

func (p *requestPool) get(s *Server) *request {
	q, ok := p.pool.Get().(*request)
	if !ok {
		q = &request{server: s}
		q.lookup, q.Uncount, q.TunnelEnded = q.match.values, q.pass.Leave, q.tunnelEnded
		q.Init(&s.shared)
	}
	return q
}

// put returns a finished request to the pool. Nothing else may refer to it.
func (p *requestPool) put(q *request) {
	if !q.Reset() {
		return
	}
	found := q.match.found
	clear(found[:cap(found)])
	q.match = matcher{found: found[:0]}
	q.conn, q.table, q.action, q.tunnelFront, q.pools, q.userAgent = nil, nil, nil, nil, nil, ""
	q.need, q.pass, q.spelling = backs.Need{}, limit.Pass{}, policy.Spelling{}
	p.pool.Put(q)
}

// handle serves one request of a client, from any front. When it returns false, the
// request is answered, or its front is aborted. When it returns true, an engine carries
// the connection, which the request upgraded, and the end of the tunnel ends the front,
// perhaps at once: see front1.tunnelEnded.
func (s *Server) handle(f exchange.Front, r *message.Request, c *conn, table *Table) (tunnels bool) {
	q := s.begin(f, r, c)
	q.table = table
	q.tunnelFront, _ = f.(*front1)
	panicked := true
	defer func() {
		if tunnels {
			return
		}
		if panicked {
			s.log.Error("panic while serving a request", "panic", recover(), "stack", string(debug.Stack()))
			q.Cancel(errPanic)
			f.Abort(errPanic)
			q.Leave()
			q.finish(true)
			return // a timer may still refer to q, so q is never used again
		}
		q.finish(false)
		s.requests.put(q)
	}()
	// Forward is called here, not in decide, so that a request that waits for its
	// upstream holds a small stack, without the frame of decide: see
	// TestAnOpenRequestHoldsLittle.
	if plan, ok := q.decide(); ok {
		tunnels = q.Forward(plan)
	}
	panicked = false
	return tunnels
}

// tunnelEnded is called when the upgraded connection of the request has ended.
func (q *request) tunnelEnded() {
	defer q.tunnelFront.tunnelEnded()
	defer func() {
		if p := recover(); p != nil {
			q.server.log.Error("panic while serving a request", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	q.finish(false)
}

// begin begins a request.
func (s *Server) begin(f exchange.Front, r *message.Request, c *conn) *request {
	q := s.requests.get(s)
	q.conn = c
	q.Begin(f, r, &c.facts)
	q.Facts.Listener = s.options.Listener
	if s.options.AccessLog != nil {
		q.userAgent, _ = r.Fields.Get("User-Agent")
	}
	s.counters.inFlight.Add(1)
	return q
}

// refuse answers a request that could not be read.
func (s *Server) refuse(f exchange.Front, r *message.Request, c *conn, a policy.Answer) {
	q := s.begin(f, r, c)
	q.Answer(a)
	q.finish(false)
	s.requests.put(q)
}

var errPanic = exchange.ErrPanic

// finish logs and counts a request.
func (q *request) finish(panicked bool) {
	s := q.server
	defer s.counters.inFlight.Add(-1) // decreased last: when no request is in flight, all are counted
	q.pass.Leave()
	code, elapsed := q.Code(), time.Since(q.Start)
	switch {
	case code != 0:
	case panicked:
		code = 500
	default:
		code = policy.StatusClientGone
	}
	if s.options.AccessLog != nil {
		q.record(code, elapsed, panicked)
	}
	s.counters.requestDone(code, elapsed, q.Log.Upgraded)
	if s.log.IsDebug() {
		q.log(code, elapsed, panicked)
	}
}

func (q *request) log(code int, elapsed time.Duration, panicked bool) {
	f, r := &q.Facts, q.Facts.Request
	q.server.log.Debug("request", "client", f.Client, "method", policy.Bounded(r.Method), "host", policy.Bounded(f.Target.Host), "path", policy.Bounded(f.Target.Path),
		"protocol", protocolName(r), "code", code, "elapsed", elapsed, "route", f.Route, "upstream", f.Upstream, "endpoint", f.Endpoint, "tries", q.Tries(), "aborted", q.Aborted() || panicked,
		"request_id", f.RequestID, "trace", policy.TraceID(r.Fields))
}

func protocolName(r *message.Request) string {
	switch {
	case r.Major == 2:
		return "HTTP/2.0"
	case r.Minor == 0:
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}

// decide routes the request. It answers the request, or returns how to forward it.
func (q *request) decide() (plan exchange.Plan, ok bool) {
	r := q.Facts.Request
	q.GRPC = policy.IsGRPC(r.Fields)
	if q.table == nil {
		q.Answer(policy.ServiceUnavailable)
		return plan, false
	}
	q.Rules.RequestIDField, q.Rules.MaxBody = q.table.RequestIDField, q.table.MaxBody
	q.Facts.Identify(q.table.TrustedProxies)
	q.Facts.AssignRequestID(q.table.RequestIDField, q.Start, &q.server.entropy)
	if failure := q.conn.intake.Member.CheckUnder(q.table.Validity); failure != nil {
		// The client may be admitted on another connection (RFC 9110, section 15.5.20).
		q.Log.Ended, q.Log.Reason = string(splice.Unverified), failure.Reason
		q.CloseAfter()
		q.Answer(policy.Misdirected)
		return plan, false
	}
	if !q.table.Access.Serves(q.Facts.Address) {
		q.server.log.Debug("request refused: the client has no access", "client", q.Facts.Client)
		q.Answer(policy.Forbidden)
		return plan, false
	}
	var err error
	q.Facts.Target, err = policy.ParseTarget(r)
	if err != nil {
		a := policy.BadRequest
		if errors.Is(err, policy.ErrMethod) {
			a = policy.MethodNotAllowed
		}
		q.server.log.Debug("request refused", "client", q.Facts.Client, "error", policy.Printable(err))
		q.CloseAfter()
		q.Answer(a)
		return plan, false
	}
	if q.misdirected() {
		q.Answer(policy.Misdirected)
		return plan, false
	}
	if r.Major > 1 && expectsOther(r.Fields) {
		q.Answer(policy.Rejection(417))
		return plan, false
	}
	// Fields are removed before the match, so that conditions see only forwarded
	// fields.
	q.spelling = q.table.spelling()
	q.ExpectsContinue = policy.CleanRequest(r, &q.spelling)
	if r.Protocol != "" {
		key, ok := policy.ConnectToUpgrade(r)
		if !ok {
			q.Answer(policy.Rejection(501))
			return plan, false
		}
		q.WebSocketKey = key
	}
	if q.limited() {
		return plan, false
	}
	if m := q.table.MaxBody; m > 0 && r.Length > m {
		q.Answer(policy.Rejection(413))
		return plan, false
	}
	q.match.fields, q.match.scheme = &r.Fields, q.Facts.Scheme
	q.action = q.table.action(route.Request{
		Host: q.Facts.Target.Host, Path: q.Facts.Target.Path, Method: r.Method, Scheme: q.Facts.Scheme, Header: q.lookup,
		Client: q.conn.client(),
	})
	q.conn.latest.noteRoute(q.action)
	if q.action != nil {
		q.Facts.Route, q.Rules.Response = q.action.Route, &q.action.ResponseHeaders
	}
	switch a := q.action; {
	case a == nil:
		q.Answer(policy.NotFound)
	case a.Redirect != nil && a.Redirect.Host == "" && q.Facts.Authority() == "":
		q.Answer(policy.BadRequest) // the redirect needs a host
	case a.Redirect != nil:
		q.Respond(cmp.Or(a.Redirect.Code, 302), "Location", a.Redirect.location(&q.Facts), "")
	case a.Respond != nil:
		q.Respond(cmp.Or(a.Respond.Code, 200), "Content-Type", cmp.Or(a.Respond.ContentType, "text/plain; charset=utf-8"), a.Respond.Body)
	case a.Forward != nil:
		return q.plan()
	default:
		q.Answer(policy.NotFound)
	}
	return plan, false
}

// misdirected reports whether the request's host must not be used on its connection.
func (q *request) misdirected() bool {
	return q.conn.facts.TLS && q.table.misdirects(q.conn.intake.Member.Peer().ServerName, q.Facts.Target.Host)
}

// expectsOther reports whether a client has an expectation other than 100-continue
// (RFC 9110, section 10.1.1). For HTTP/1.x the parser checks this.
func expectsOther(f message.Fields) bool {
	for e := range f.Elements("Expect") {
		if !message.EqualFold(e, "100-continue") {
			return true
		}
	}
	return false
}
