package l7

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// errDeadline is the cause of a context whose Forward.Timeout ran out.
var errDeadline = errors.New("the upstream's response header did not come in time")

// errStatus is what a response fails with whose status code is none (RFC 9110,
// section 15): net/http reads it, and panics when it is to write it.
var errStatus = errors.New("the upstream's status code is below 100")

// errUpgrade is what an upgrade fails with that the client did not ask for.
var errUpgrade = errors.New("the upstream changed to a protocol that it was not asked for")

// isUpgradeTo reports whether a response to an upgrade is to what was asked for.
func isUpgradeTo(response, request fields) bool {
	return len(request["Upgrade"]) == 1 && len(response["Upgrade"]) == 1 && hasToken(response["Connection"], "upgrade") &&
		strings.EqualFold(response["Upgrade"][0], request["Upgrade"][0])
}

// abandonTime is how long a client may go on sending a body that nobody reads
// any more, once its response is complete.
const abandonTime = 5 * time.Second

// newProxy returns the handler of requests that are forwarded; their context
// has the exchange.
func (s *Server) newProxy() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      carrier{},
		FlushInterval:  -1, // what the upstream sends goes on at once
		BufferPool:     &buffers{},
		ErrorLog:       s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		ModifyResponse: s.modifyResponse,
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			s.forwardFailed(exchangeOf(r.Context()), r, err)
		},
	}
}

// forward carries a request to the upstream and the response back.
func (s *Server) forward(x *exchange, r *http.Request) {
	x.back = x.action.Forward.Backs.Pick()
	if x.back == nil {
		s.forwardFailed(x, r, upstream.ErrNoEndpoint)
		return
	}
	ctx, cancel := context.WithCancelCause(context.WithValue(r.Context(), exchangeKey{}, x))
	defer cancel(nil)
	x.cancel = cancel
	x.w.giveUp = func() { cancel(nil) }
	defer x.leave()
	r = r.WithContext(ctx)
	if r.ContentLength != 0 {
		x.body = &clientBody{ReadCloser: r.Body, trailer: fields(r.Trailer), rules: &x.action.RequestHeaders, idle: x.idle}
		x.body.trailer.cleanTrailer(x.body.rules) // these were only announced
		x.w.body, r.Body = x.body, x.body
	}
	if x.body != nil && r.ProtoMajor == 1 {
		x.body.http1 = http.NewResponseController(x.w)
		// The upstream may answer before it has read the body, and go on
		// reading: net/http would read what remains of it instead of us.
		_ = x.body.http1.EnableFullDuplex() // cannot fail: this is HTTP/1
		defer x.abandonBody()
	}
	s.proxy.ServeHTTP(x.w, r)
}

// abandonBody bounds the wait for the rest of a request's body that nobody
// needs, for its exchange is over: net/http waits for it, on both sides, before
// it goes on.
func (x *exchange) abandonBody() {
	if x.body == nil || x.body.ended.Load() || x.w.code == http.StatusSwitchingProtocols {
		return
	}
	x.body.abandoned.Store(true)
	if x.body.http1 != nil {
		wait := abandonTime
		if x.body.broken.Load() {
			wait = 0 // there is no rest
		}
		_ = x.body.http1.SetReadDeadline(time.Now().Add(wait)) // fails only if the client left
		return
	}
	_ = x.body.ReadCloser.Close() // ends a Read in progress; it cannot fail
}

// rewrite makes the outgoing request. ReverseProxy has taken out the hop-by-hop
// fields, and put back those of an upgrade.
func rewrite(p *httputil.ProxyRequest) {
	x := exchangeOf(p.In.Context())
	out := p.Out
	// Opaque is sent as it is: the path that was matched, in its one form.
	out.URL = &url.URL{Scheme: x.back.scheme(), Host: "upstream", Opaque: x.target.path}
	if x.target.query != "" {
		out.URL.RawQuery, out.URL.ForceQuery = x.target.query[1:], true
	}
	out.Host = x.target.authority
	// The same map, not a copy: trailers are filled in as the body ends.
	out.Trailer = p.In.Trailer
	header := fields(out.Header)
	header.setForwarding(x.client, x.target.authority, x.tls)
	x.action.RequestHeaders.apply(header)
}

// modifyResponse sees the upstream's response header before the client does.
func (s *Server) modifyResponse(res *http.Response) error {
	x := exchangeOf(res.Request.Context())
	if res.StatusCode < 100 {
		return errStatus
	}
	if res.StatusCode == http.StatusSwitchingProtocols && !isUpgradeTo(fields(res.Header), fields(res.Request.Header)) {
		return errUpgrade // ReverseProxy would see it too, and leave the connection open
	}
	if len(res.Trailer) > 0 {
		// HTTP/2 may have both; in HTTP/1.1 only a chunked body has trailers.
		res.Header.Del("Content-Length")
	}
	if _, ok := res.Header["Content-Type"]; !ok {
		x.w.Header()["Content-Type"] = nil // or net/http guesses one
	}
	x.action.ResponseHeaders.apply(fields(res.Header))
	if res.StatusCode != http.StatusSwitchingProtocols {
		res.Body = &upstreamBody{ReadCloser: res.Body, server: s, x: x, ctx: res.Request.Context()}
	}
	return nil
}

// forwardFailed answers a request that came to nothing upstream, and says why
// where it matters.
func (s *Server) forwardFailed(x *exchange, r *http.Request, err error) {
	ctx := r.Context()
	a, name := badGateway, ""
	if x.back != nil {
		name = x.back.options.Upstream.Name()
	}
	switch {
	case errors.Is(context.Cause(ctx), errDeadline):
		a, err = gatewayTimeout, errDeadline
	case x.body != nil && x.body.late.Load(): // for which net/http ends ctx as well
		s.log.Debug("client stopped sending its request's body", "client", x.client, "upstream", name)
		s.answer(x, r, requestTimeout)
		return
	case ctx.Err() != nil: // or Shutdown has given up waiting
		s.log.Debug("client left before its request was answered", "client", x.client, "upstream", name)
		panic(http.ErrAbortHandler)
	case x.body != nil && x.body.broken.Load():
		s.log.Debug("client broke off its request's body", "client", x.client, "upstream", name)
		s.answer(x, r, badRequest)
		return
	case errors.Is(err, upstream.ErrNoEndpoint):
		a = serviceUnavailable
	}
	s.logFailure(x, name, a.code, err)
	s.answer(x, r, a)
}

// logFailure warns about an upstream's failure, unless the same was said a
// moment ago.
func (s *Server) logFailure(x *exchange, name string, code int, err error) {
	reason := certs.Classify(err)
	suppressed, log := s.failures.due(name, reason, time.Now())
	if !log {
		return
	}
	s.log.Warn("request failed", "route", x.action.Route, "upstream", name, "endpoint", x.endpoint,
		"code", code, "reason", string(reason), "error", printable(err), "suppressed", suppressed)
}

// A carrier sends a forwarded request to the first endpoint that can be
// connected to.
type carrier struct{}

func (carrier) RoundTrip(out *http.Request) (*http.Response, error) {
	x := exchangeOf(out.Context())
	if d := x.action.Forward.Timeout; d > 0 {
		timer := time.AfterFunc(d, func() { x.cancel(errDeadline) })
		defer timer.Stop()
	}
	err := upstream.ErrNoEndpoint
	for _, e := range x.back.options.Upstream.Order() {
		var res *http.Response
		res, err = x.send(out, e)
		if err == nil {
			return res, nil
		}
		if !isUnsent(err) || out.Context().Err() != nil {
			break
		}
	}
	return nil, err
}

// send sends a request to one endpoint.
func (x *exchange) send(out *http.Request, e *upstream.Endpoint) (*http.Response, error) {
	try := out.WithContext(httptrace.WithClientTrace(out.Context(), x.trace()))
	if host := x.back.host(e); host != "" {
		try.Host = host
	}
	body := &tryBody{ReadCloser: out.Body}
	if out.Body != nil && out.Body != http.NoBody {
		try.Body = body
	}
	x.endpoint = e.Address()
	x.dials.Store(0)
	x.dialled.Store(nil)
	x.kept.Store(nil)
	x.shared.Store(nil)
	res, err := x.transport(out, e).RoundTrip(try)
	if err == nil && x.unasked() {
		x.kept.Load().Close()
		res.Body.Close()
		err = errUnasked
	}
	if err == nil {
		e.NoteRequest()
		e.NoteReply()
		return res, nil
	}
	if isUnsent(err) && body.touched.Load() {
		err = errTouched{err}
	}
	if !isUnsent(err) {
		e.NoteRequest()
		if out.Context().Err() == nil && (x.body == nil || !x.body.broken.Load()) {
			err = x.refusal(err)
			e.NoteFailure(err)
		}
	}
	return nil, err
}

// transport returns what carries a request to an endpoint. Unless it is an
// upgrade, the exchange enters a generation of connections.
func (x *exchange) transport(out *http.Request, e *upstream.Endpoint) *http.Transport {
	x.leave()
	pool := x.back.pool(e, strings.Trim(x.target.host, "[]"))
	if len(out.Header["Upgrade"]) > 0 {
		return pool.upgrades
	}
	x.generation = pool.enter()
	return x.generation.requests
}

// leave leaves the generation that the exchange entered, if it has.
func (x *exchange) leave() {
	if x.generation != nil {
		x.generation.leave()
		x.generation = nil
	}
}

// isUnsent reports whether nothing of a request can have reached an upstream.
func isUnsent(err error) bool {
	var dial *upstream.DialError
	var touched errTouched
	return errors.As(err, &dial) && !errors.As(err, &touched)
}

// errTouched is a failure to connect for a request whose body was begun on
// another connection, so that nobody can begin it again.
type errTouched struct{ error }

func (e errTouched) Unwrap() error { return e.error }

// A tryBody is a request's body for one endpoint. The transport closes it when
// it cannot connect, which must not close the body for the next.
type tryBody struct {
	io.ReadCloser
	touched, closed atomic.Bool
}

func (b *tryBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	b.touched.Store(true)
	return b.ReadCloser.Read(p)
}

func (b *tryBody) Close() error {
	b.closed.Store(true)
	return nil // ReverseProxy closes the body itself
}

// An upstreamBody is a response's body that says when the upstream broke it off.
type upstreamBody struct {
	io.ReadCloser
	server *Server
	x      *exchange
	ctx    context.Context
	failed bool
}

func (b *upstreamBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && !b.failed && b.ctx.Err() == nil {
		b.failed = true
		b.server.logFailure(b.x, b.x.back.options.Upstream.Name(), b.x.w.code, err)
	}
	return n, err
}

func (b *upstreamBody) Close() error {
	// The upstream has said all it has to say. An HTTP/2 body's Close waits
	// for the request's to be sent, so that must not wait for the client.
	b.x.abandonBody()
	return b.ReadCloser.Close()
}

// buffers lends ReverseProxy its copy buffers.
type buffers struct{ pool socket.Pool }

func (b *buffers) Get() []byte  { return *b.pool.Get() }
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
