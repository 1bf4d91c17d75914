package l7

import (
	"cmp"
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// An exchange is one request and what became of it. It is carried between a
// front and a back, and knows neither's protocol.
type exchange struct {
	server   *Server
	front    front
	facts    policy.Facts
	response message.Response // the final one, as far as there is one

	start    time.Time
	conn     *conn
	table    *Table
	action   *Action
	match    matcher
	lookup   func(name string) []string // match.values, made once
	spelling policy.Spelling
	grpc     bool       // the client takes a gRPC status
	expects  bool       // the client waits for 100 (Continue)
	key      string     // of a WebSocket that a client of HTTP/2 asks for; else ""
	code     int        // of the final response; 0: not begun
	pass     limit.Pass // through the listener's limits
	aborted  bool
	noted    noted

	// Of a request that is forwarded.
	back      *Back
	protected policy.Protected                 // fields that the request's trailer cannot set
	hash      upstream.Key                     // what consistent hashing chooses by
	turn      upstream.Turn                    // through the back's upstream
	wait      func() (context.Context, func()) // x.queue, made once
	endpoint  *upstream.Endpoint
	retry     *Retry            // whether it is tried again, and when; nil: not at all
	replay    *replay           // its body; nil: it has none, or cannot be sent again
	tries     int               // how many were begun
	refusals  int               // how often it was sent elsewhere after its stream was refused
	refuser   *conn2            // the connection that refused it last; nil: none
	retrying  bool              // it has a part of its upstream's budget
	exposed   bool              // the present try may have been seen by an endpoint
	hinted    bool              // an interim response was passed on
	failure   error             // what the try before came to
	loose     bool              // a timer may still come to it: it is not used again
	expire    func()            // what it calls
	gone      func(cause error) // what the front calls
	sending   sync.WaitGroup    // of the goroutine that sends the body, if there is one
	uploading bool              // there is one
	proceed   chan struct{}     // closed when the body is to be sent; nil: at once
	released  bool              // it is closed
	touched   atomic.Bool       // some of the body was taken from the front
	read      atomic.Bool       // all of it
	over      atomic.Bool       // the rest of the body was refused
	sent      atomic.Bool       // the request went upstream to its end
	sentAt    atomic.Int64      // when, by the server's clock
	answering atomic.Bool       // what is passed on is the response to a gRPC call

	stall stall

	timing    sync.Mutex  // held by the timers
	timer     *time.Timer // reused
	ticking   bool        // it was set for the exchange
	armed     bool        // and is set, or has fired
	fired     bool        // as it has
	deadline  time.Time   // for the response's head; zero: none
	byDefault bool        // no timeout was set for that
	tryEnd    time.Time   // for that of the present try; zero: none
	last      time.Time   // for all of it; zero: none
	byCall    bool        // last is the deadline of a gRPC call

	mu       sync.Mutex
	live     back               // what carries it now; nil: nothing
	cancel   context.CancelFunc // ends a dial for it; nil: none
	cause    error              // what ended it before its time; nil: nothing
	informed bool               // 100 (Continue) was sent
	headed   bool               // the final head is there
	late     bool               // the present try has run out of its time
}

// exchanges lends exchanges, whose parts are used again.
type exchanges struct{ pool sync.Pool }

func (p *exchanges) get(s *Server) *exchange {
	x, ok := p.pool.Get().(*exchange)
	if !ok {
		x = &exchange{server: s}
		x.lookup, x.gone, x.expire, x.wait = x.match.values, x.fail, x.expired, x.queue
		x.stall.check = x.stalled
	}
	return x
}

// put takes back an exchange that is over: nothing refers to it any more.
func (p *exchanges) put(x *exchange) {
	if x.loose {
		return
	}
	fields, found := x.response.Fields, x.match.found
	clear(fields[:cap(fields)])
	clear(found[:cap(found)])
	x.facts.Reset()
	*x = exchange{
		server: x.server, lookup: x.lookup, gone: x.gone, expire: x.expire, wait: x.wait, timer: x.timer,
		stall:    stall{timer: x.stall.timer, check: x.stall.check},
		response: message.Response{Fields: fields[:0]}, match: matcher{found: found[:0]},
		facts: x.facts,
	}
	p.pool.Put(x)
}

// handle serves one request of a client, whoever brings it: it is answered, or
// its front aborted, when handle returns.
func (s *Server) handle(f front, r *message.Request, c *conn, table *Table) {
	x := s.begin(f, r, c)
	x.table = table
	panicked := true
	defer func() {
		if panicked {
			s.log.Error("panic while serving a request", "panic", recover(), "stack", string(debug.Stack()))
			x.fail(errPanic)
			f.Abort(errPanic)
			x.leave()
			x.finish(true)
			return // x is never used again: who knows what refers to it
		}
		x.finish(false)
		s.exchanges.put(x)
	}()
	x.serve()
	panicked = false
}

// begin returns the exchange of a request.
func (s *Server) begin(f front, r *message.Request, c *conn) *exchange {
	x := s.exchanges.get(s)
	x.front, x.conn = f, c
	x.facts.Begin(r, &c.facts)
	x.facts.Listener = s.options.Listener
	x.start = time.Now()
	if s.options.AccessLog != nil {
		x.noted.userAgent, _ = r.Fields.Get("User-Agent")
	}
	s.counters.inFlight.Add(1)
	return x
}

// refuse answers a request that could not be read.
func (s *Server) refuse(f front, r *message.Request, c *conn, a policy.Answer) {
	x := s.begin(f, r, c)
	x.answer(a)
	x.finish(false)
	s.exchanges.put(x)
}

var errPanic = errors.New("panic while serving the request")

// finish logs and counts a request.
func (x *exchange) finish(panicked bool) {
	s := x.server
	defer s.counters.inFlight.Add(-1) // last: where none is in flight all are counted
	x.pass.Leave()
	code, elapsed := x.code, time.Since(x.start)
	switch {
	case code != 0:
	case panicked:
		code = 500
	default:
		code = policy.StatusClientGone
	}
	if s.options.AccessLog != nil {
		x.record(code, elapsed, panicked)
	}
	s.counters.requestDone(code, elapsed, x.noted.upgraded)
	if s.log.IsDebug() {
		x.log(code, elapsed, panicked)
	}
}

func (x *exchange) log(code int, elapsed time.Duration, panicked bool) {
	route, upstream, endpoint := "", "", ""
	if x.action != nil {
		route = x.action.Route
	}
	if x.back != nil {
		upstream = x.back.options.Upstream.Name()
	}
	if x.endpoint != nil {
		endpoint = x.endpoint.Address()
	}
	x.server.log.Debug("request", "client", x.facts.Client, "method", policy.Bounded(x.facts.Request.Method), "host", policy.Bounded(x.facts.Target.Host), "path", policy.Bounded(x.facts.Target.Path),
		"protocol", protocolName(x.facts.Request), "code", code, "elapsed", elapsed, "route", route, "upstream", upstream, "endpoint", endpoint, "tries", x.tries, "aborted", x.aborted || panicked,
		"request_id", x.facts.RequestID, "trace", policy.TraceID(x.facts.Request.Fields))
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

// serve decides what happens to the request, and lets it.
func (x *exchange) serve() {
	r := x.facts.Request
	x.grpc = policy.IsGRPC(r.Fields)
	if x.table == nil {
		x.answer(policy.ServiceUnavailable)
		return
	}
	x.facts.Identify(x.table.TrustedProxies)
	x.facts.AssignRequestID(x.table.RequestIDField, x.start, &x.server.entropy)
	if !x.table.Access.Serves(x.facts.Address) {
		x.server.log.Debug("request refused: the client has no access", "client", x.facts.Client)
		x.answer(policy.Forbidden)
		return
	}
	var err error
	x.facts.Target, err = policy.ParseTarget(r)
	if err != nil {
		a := policy.BadRequest
		if errors.Is(err, policy.ErrMethod) {
			a = policy.MethodNotAllowed
		}
		x.server.log.Debug("request refused", "client", x.facts.Client, "error", policy.Printable(err))
		if f, ok := x.front.(laster); ok {
			f.Last()
		}
		x.answer(a)
		return
	}
	if x.conn.facts.TLS && x.table.TLS != nil && x.facts.Target.Host != "" && !x.table.TLS.Knows(x.facts.Target.Host) {
		// Over a connection whose SNI was known, and which a client may use
		// for other names of its certificate (RFC 9110, section 7.4).
		x.answer(policy.Misdirected)
		return
	}
	if r.Major > 1 && expectsOther(r.Fields) {
		x.answer(policy.Rejection(417))
		return
	}
	// Before it is matched, so that no condition holds for what is not sent on.
	x.spelling = x.table.spelling()
	x.expects = policy.CleanRequest(r, &x.spelling)
	if r.Protocol != "" {
		key, ok := policy.ConnectToUpgrade(r)
		if !ok {
			x.answer(policy.Rejection(501))
			return
		}
		x.key = key
	}
	if x.limited() {
		return
	}
	if m := x.table.MaxBody; m > 0 && r.Length > m {
		x.answer(policy.Rejection(413))
		return
	}
	x.match.fields, x.match.scheme = &r.Fields, x.facts.Scheme
	x.action = x.table.action(route.Request{Host: x.facts.Target.Host, Path: x.facts.Target.Path, Method: r.Method, Scheme: x.facts.Scheme, Header: x.lookup})
	if x.action != nil {
		x.facts.Route = x.action.Route
	}
	switch a := x.action; {
	case a == nil:
		x.answer(policy.NotFound)
	case a.Redirect != nil && a.Redirect.Host == "" && x.facts.Authority() == "":
		x.answer(policy.BadRequest) // there is no host to redirect to
	case a.Redirect != nil:
		x.response = message.Response{Status: cmp.Or(a.Redirect.Code, 302), Fields: x.response.Fields[:0], Declared: -1}
		x.response.Fields.Add("Location", a.Redirect.location(&x.facts))
		x.ruleResponse()
		x.respond("")
	case a.Respond != nil:
		x.response = message.Response{Status: cmp.Or(a.Respond.Code, 200), Fields: x.response.Fields[:0], Declared: -1}
		x.response.Fields.Add("Content-Type", cmp.Or(a.Respond.ContentType, "text/plain; charset=utf-8"))
		x.ruleResponse()
		x.respond(a.Respond.Body)
	case a.Forward != nil:
		x.forward()
	default:
		x.answer(policy.NotFound)
	}
}

// answer answers with an error of the gateway's own.
func (x *exchange) answer(a policy.Answer) {
	if x.code == 0 { // else it is too late: the response has begun
		x.noted.grpc = a.GRPC
		body := a.Write(&x.response, x.grpc)
		x.returnRequestID()
		x.respond(body)
	}
}

// ruleResponse changes a final response that is not the gateway's own error as
// the route has it.
func (x *exchange) ruleResponse() {
	x.returnRequestID()
	x.action.ResponseHeaders.ApplyResponse(&x.response.Fields, &x.facts)
}

// returnRequestID puts the request's id into the response.
func (x *exchange) returnRequestID() {
	x.facts.ReturnRequestID(&x.response.Fields, x.table.requestIDField())
}

// expectsOther reports whether a client expects what there is not (RFC 9110,
// section 10.1.1). In HTTP/1.x this is seen before.
func expectsOther(f message.Fields) bool {
	for e := range f.Elements("Expect") {
		if !message.EqualFold(e, "100-continue") {
			return true
		}
	}
	return false
}

// A laster can be told that it is to take no request after this one: who sends
// what has two readings may have sent another request in it.
type laster interface{ Last() }

// A sparer has a body that need not be read to go on after it.
type sparer interface{ Spare() }

// respond sends x.response with a body.
func (x *exchange) respond(body string) {
	r := &x.response
	if f, ok := x.front.(sparer); ok && !x.uploading {
		f.Spare()
	}
	switch {
	case r.Status == 204:
		body = ""
	case x.facts.Request.Method == "HEAD" || r.Status == 304:
		r.Declared, body = int64(len(body)), ""
	}
	r.Length = int64(len(body))
	x.code = r.Status
	x.dated()
	x.pass.Leave() // before the client has the answer, upon which it may send its next request
	err := x.front.Respond(r, body == "")
	if err == nil && body != "" {
		if err = x.front.Write([]byte(body)); err == nil {
			x.noted.toClient = uint64(len(body))
			err = x.front.End(nil)
		}
	}
	if err != nil { // the client has gone
		x.abort(err)
	}
}

// dated sees to it that the response has a Date (RFC 9110, section 6.6.1).
func (x *exchange) dated() {
	if !x.response.Fields.Has("Date") {
		x.response.Fields.Add("Date", x.server.clock.date())
	}
}

// abort ends the exchange without a response, or in the middle of one.
func (x *exchange) abort(cause error) {
	x.pass.Leave()
	if x.ranOut() && x.tellDeadline() {
		x.noted.grpc, x.noted.reason = policy.GatewayTimeout.GRPC, certs.ReasonResponseTimeout
		return
	}
	x.aborted = true
	x.front.Abort(cause)
}
