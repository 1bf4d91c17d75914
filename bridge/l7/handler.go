package l7

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

// An exchange is one request and what became of it.
type exchange struct {
	start  time.Time
	target target
	action *Action
	client string
	tls    bool
	w      *response
	idle   time.Duration // see Table.IdleTimeout
	body   *clientBody
	cancel context.CancelCauseFunc // of the request's context

	// Set while it is forwarded, by the goroutine that serves the request.
	back       *Back
	endpoint   string
	generation *generation // of connections, of which one carries it; nil: none

	// Of connections dialled for it at the present endpoint: how many, and the
	// last with TLS.
	dials   atomic.Int32
	dialled atomic.Pointer[tls.Conn]
	kept    atomic.Pointer[kept]     // the connection that it is sent on, if that is one
	shared  atomic.Pointer[tls.Conn] // the last it was given, with HTTP/2 over TLS
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// serveHTTP serves one request of any connection.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.begin() {
		panic(http.ErrAbortHandler)
	}
	defer s.work.Done()
	x := &exchange{start: time.Now(), tls: r.TLS != nil, w: &response{ResponseWriter: w}}
	s.counters.inFlight.Add(1)
	defer func() {
		p := recover()
		s.finish(x, r, p)
		if p != nil {
			panic(http.ErrAbortHandler)
		}
	}()
	s.serve(x, r)
}

// finish counts and logs a request. p is what its handler panicked with.
func (s *Server) finish(x *exchange, r *http.Request, p any) {
	s.counters.inFlight.Add(-1)
	if p != nil && p != http.ErrAbortHandler {
		s.log.Error("panic while serving a request", "panic", p, "stack", string(debug.Stack()))
	}
	code, elapsed := x.w.code, time.Since(x.start)
	if code == 0 {
		code = http.StatusOK
		switch p {
		case nil:
		case http.ErrAbortHandler:
			code = statusClientGone
		default:
			code = http.StatusInternalServerError
		}
	}
	s.counters.requestDone(code, elapsed)
	if s.log.IsDebug() {
		route, upstream := "", ""
		if x.action != nil {
			route = x.action.Route
		}
		if x.back != nil {
			upstream = x.back.options.Upstream.Name()
		}
		s.log.Debug("request", "client", x.client, "method", bounded(r.Method), "host", bounded(x.target.host), "path", bounded(x.target.path),
			"protocol", r.Proto, "code", code, "elapsed", elapsed, "route", route, "upstream", upstream, "endpoint", x.endpoint, "aborted", p != nil)
	}
}

func (s *Server) serve(x *exchange, r *http.Request) {
	table := s.options.Table()
	if table == nil {
		s.answer(x, r, serviceUnavailable)
		return
	}
	x.idle = table.settings().idleTimeout
	header := fields(r.Header)
	var err error
	x.target, err = parseTarget(head{
		method: r.Method, target: r.RequestURI, authority: r.Host, header: header, encoded: len(r.TransferEncoding) > 0, length: r.ContentLength,
	})
	if err != nil {
		a := badRequest
		if errors.Is(err, errMethod) {
			a = methodNotAllowed
		}
		s.log.Debug("request refused", "client", r.RemoteAddr, "error", printable(err))
		x.w.Header().Set("Connection", "close") // what else it sent is not to be trusted
		s.answer(x, r, a)
		return
	}
	x.client = hostOf(r.RemoteAddr)
	if r.TLS != nil && table.TLS != nil && !table.TLS.Knows(x.target.host) {
		// Over a connection whose SNI was known, and which a client may use
		// for other names of its certificate (RFC 9110, section 7.4).
		s.answer(x, r, misdirected)
		return
	}
	// Before it is matched, so that no condition holds for what is not sent on.
	header.cleanRequest(r.ProtoMajor == 1)
	x.action = table.action(route.Request{Host: x.target.host, Path: x.target.path, Method: r.Method, Header: r.Header.Values})
	switch a := x.action; {
	case a == nil:
		s.answer(x, r, notFound)
	case a.Redirect != nil:
		h := x.w.Header()
		h.Set("Location", a.Redirect.location(x.target, x.tls))
		a.ResponseHeaders.apply(fields(h))
		x.w.WriteHeader(cmp.Or(a.Redirect.Code, http.StatusFound))
	case a.Respond != nil:
		h := x.w.Header()
		h.Set("Content-Type", cmp.Or(a.Respond.ContentType, "text/plain; charset=utf-8"))
		a.ResponseHeaders.apply(fields(h))
		x.w.WriteHeader(cmp.Or(a.Respond.Code, http.StatusOK))
		_, _ = io.WriteString(x.w, a.Respond.Body) // fails only if the client left, or for a code without a body
	case a.Forward != nil:
		s.forward(x, r)
	default:
		s.answer(x, r, notFound)
	}
}

// answer answers with an error of the gateway's own.
func (s *Server) answer(x *exchange, r *http.Request, a answer) {
	if x.w.code != 0 {
		return // too late: the response has begun
	}
	code, body := a.write(fields(x.w.Header()), isGRPC(fields(r.Header)))
	x.w.WriteHeader(code)
	_, _ = io.WriteString(x.w, body) // fails only if the client left
}

// hostOf returns the address's host without a port; "" if it has none.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil || net.ParseIP(host) == nil {
		return ""
	}
	return host
}

// A response remembers how a request was answered.
type response struct {
	http.ResponseWriter
	code   int         // 0: the response has not begun
	body   *clientBody // of a request that is forwarded, if it has one
	giveUp func()      // ends an upgraded connection
}

func (w *response) WriteHeader(code int) {
	if code == http.StatusContinue {
		return // net/http sends its own when the body is first read; two would be one too many
	}
	if w.code == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		w.code = code
		if w.body != nil && w.body.http1 != nil && code >= 200 && !w.body.ended.Load() {
			// What follows may be the rest of a body whose framing is broken,
			// or was never looked at: it must not be taken for a request.
			w.Header().Set("Connection", "close")
		}
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *response) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap gives http.ResponseController what response does not do itself.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack hands over the connection of an upgraded request as a tunnel.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.code = http.StatusSwitchingProtocols
	return newTunnel(nc, rw.Reader, w.giveUp), rw, nil
}

// A clientBody is a request's body that remembers whether its end was read,
// and whether the client broke it off or stopped sending it.
type clientBody struct {
	io.ReadCloser
	trailer fields                   // the request's, filled in as the body ends
	rules   *HeaderRules             // for the request's header
	http1   *http.ResponseController // nil for HTTP/2
	idle    time.Duration            // how long the client may send nothing (HTTP/1)

	ended     atomic.Bool
	broken    atomic.Bool
	late      atomic.Bool // broken, because it took too long
	abandoned atomic.Bool // nobody needs the rest
}

func (b *clientBody) Read(p []byte) (int, error) {
	var deadline time.Time
	if b.http1 != nil && !b.ended.Load() && !b.abandoned.Load() {
		deadline = time.Now().Add(b.idle)
		_ = b.http1.SetReadDeadline(deadline) // fails only if the client left, and then so does Read
	}
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		if !b.ended.Swap(true) && b.http1 != nil {
			_ = b.http1.SetReadDeadline(time.Time{}) // net/http goes on reading
		}
		b.trailer.cleanTrailer(b.rules)
	case err != nil:
		// Not by err, of which net/http makes another one in places.
		if !deadline.IsZero() && !time.Now().Before(deadline) {
			b.late.Store(true)
		}
		b.broken.Store(true)
	}
	return n, err
}
