package l7

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// retried forwards to b, with retries.
func retried(b *backs.Pools, r exchange.Retry) *Action {
	a := to(b)
	a.Forward.Retry = &r
	return a
}

// everything is a Retry for every kind of failure, without a pause.
var everything = exchange.Retry{ConnectFailure: true, Reset: true, RefusedStream: true, Codes: []int{429, 502, 503}, Methods: []string{"POST"}, Backoff: time.Nanosecond}

// A failingFirst is an upstream that fails its first requests in some way, and serves the others.
type failingFirst struct {
	mu    sync.Mutex
	fails int      // how many requests are still to fail
	seen  []string // method, path and body of each request
}

// take records a request, and reports whether the request must fail.
func (f *failingFirst) take(r string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, r)
	f.fails--
	return f.fails >= 0
}

func (f *failingFirst) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seen)
}

// ways lists the ways in which a request can fail. Each returns a Back whose
// upstream fails the first n requests that way.
var ways = map[string]func(w *testbed, p backs.Protocol, n int) (*backs.Pools, *failingFirst){
	"no connection": func(w *testbed, p backs.Protocol, n int) (*backs.Pools, *failingFirst) {
		f := &failingFirst{fails: n}
		var mu sync.Mutex
		left := n
		ln := &refusingListener{Listener: listen(w), refuses: func() bool {
			mu.Lock()
			defer mu.Unlock()
			left--
			return left >= 0
		}}
		f.fails = 0
		return w.back(p, w.serverOn(ln, f.handler(nil), "h2", "http/1.1")), f
	},
	"reset": func(w *testbed, p backs.Protocol, n int) (*backs.Pools, *failingFirst) {
		f := &failingFirst{fails: n}
		return w.back(p, w.server(f.handler(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), "h2", "http/1.1")), f
	},
	"half a head": func(w *testbed, p backs.Protocol, n int) (*backs.Pools, *failingFirst) {
		if p == backs.HTTP2 {
			return nil, nil
		}
		f := &failingFirst{fails: n}
		return w.back(p, w.server(f.handler(func(rw http.ResponseWriter, _ *http.Request) {
			c, _, _ := rw.(http.Hijacker).Hijack()
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nConte")
			c.Close()
		}))), f
	},
	"refused stream": func(w *testbed, p backs.Protocol, n int) (*backs.Pools, *failingFirst) {
		if p == backs.HTTP1 {
			return nil, nil
		}
		f := &failingFirst{fails: n}
		return w.back(p, w.raw(w.serverTLS("h2"), f.refuser(func(fr *http2.Framer, id uint32) bool {
			return fr.WriteRSTStream(id, http2.ErrCodeRefusedStream) == nil
		}))), f
	},
	"going away": func(w *testbed, p backs.Protocol, n int) (*backs.Pools, *failingFirst) {
		if p == backs.HTTP1 {
			return nil, nil
		}
		f := &failingFirst{fails: n}
		return w.back(p, w.raw(w.serverTLS("h2"), f.refuser(func(fr *http2.Framer, id uint32) bool {
			_ = fr.WriteGoAway(0, http2.ErrCodeNo, nil)
			return false
		}))), f
	},
	"503": func(w *testbed, p backs.Protocol, n int) (*backs.Pools, *failingFirst) {
		return newFailingFirst(w, p, n, 503)
	},
	"429": func(w *testbed, p backs.Protocol, n int) (*backs.Pools, *failingFirst) {
		return newFailingFirst(w, p, n, 429)
	},
}

func newFailingFirst(w *testbed, p backs.Protocol, n, code int) (*backs.Pools, *failingFirst) {
	f := &failingFirst{fails: n}
	return w.back(p, w.server(f.handler(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "failed", code) }), "h2", "http/1.1")), f
}

// handler reads requests, and lets fail answer those that must fail.
func (f *failingFirst) handler(fail http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		var trailers []string
		for name, values := range r.Trailer {
			trailers = append(trailers, fmt.Sprint(name, values))
		}
		slices.Sort(trailers)
		if f.take(fmt.Sprint(r.Method, " ", r.RequestURI, " ", string(body), strings.Join(trailers, ""))) {
			fail(w, r)
			return
		}
		fmt.Fprint(w, "served")
	})
}

// refuser serves an HTTP/2 connection: fail ends the streams that must fail, and
// reports whether the connection stays open.
func (f *failingFirst) refuser(fail func(fr *http2.Framer, id uint32) bool) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		fr := http2.NewFramer(c, c)
		fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		_ = fr.WriteSettings()
		for {
			frame, err := fr.ReadFrame()
			if err != nil {
				return
			}
			h, ok := frame.(*http2.MetaHeadersFrame)
			if !ok {
				continue
			}
			if f.take(h.PseudoValue("method") + " " + h.PseudoValue("path") + " ") {
				if !fail(fr, h.StreamID) {
					return
				}
				continue
			}
			head := h.PseudoValue("method") == "HEAD"
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: head}) // :status 200
			if head {
				continue
			}
			_ = fr.WriteData(h.StreamID, true, []byte("served"))
		}
	}
}

// A refusingListener closes some connections at once.
type refusingListener struct {
	net.Listener
	refuses func() bool
}

func (l *refusingListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || !l.refuses() {
			return c, err
		}
		c.Close()
	}
}

// In every pair of HTTP versions, each kind of failure is retried if the policy says
// so, and only then.
func TestFailuresAreRetried(t *testing.T) {
	without := map[string]func(r *exchange.Retry){
		"no connection": func(r *exchange.Retry) { r.ConnectFailure = false },
		"reset":         func(r *exchange.Retry) { r.Reset = false },
		"half a head":   func(r *exchange.Retry) { r.Reset = false },
		"503":           func(r *exchange.Retry) { r.Codes = []int{502, 504} },
		"429":           func(r *exchange.Retry) { r.Codes = []int{503} },
	}
	answers := map[string]int{"503": 503, "429": 429}
	for way, build := range ways {
		for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
			schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
				var action *Action
				var f *failingFirst
				serve := func(r *exchange.Retry, n int) (code int, body string) {
					var back *backs.Pools
					if back, f = build(w, p, n); back == nil {
						t.Skip("this version of HTTP has no such failure")
					}
					action = retried(back, *r)
					table := *table
					table.Default = action
					_, address := w.gateway(fixed(&table))
					return w.get(w.browser(), scheme+"://"+address+"/x")
				}
				with := everything
				if code, body := serve(&with, 1); code != 200 || body != "served" {
					t.Errorf("%s, %v: %d %q after %q", way, p, code, body, f.requests())
				}
				with.Attempts = 4
				if code, body := serve(&with, 3); code != 200 || body != "served" {
					t.Errorf("%s, %v: with 4 tries %d %q after %q", way, p, code, body, f.requests())
				}
				if got := f.requests(); way != "no connection" && len(got) != 4 {
					t.Errorf("%s, %v: %d requests in 4 tries", way, p, len(got))
				}
				made, refused := action.Forward.Backs.Pick().Upstream().Retries().Counts()
				if way != "going away" && (made != 3 || refused != 0) {
					t.Errorf("%s, %v: %d retries counted, %d refused", way, p, made, refused)
				}
				want := answers[way]
				if want == 0 {
					want = 502
				}
				if way == "going away" { // a closed connection is always replaced
					return
				}
				if code, _ := serve(&with, 4); code != want {
					t.Errorf("%s, %v: %d after 4 tries that failed, want %d", way, p, code, want)
				}
				if way == "refused stream" { // an unprocessed request is always resent
					with.RefusedStream = false
					if code, _ := serve(&with, 2); code != 200 || len(f.requests()) != 2+1 {
						t.Errorf("%v: %d after %q", p, code, f.requests())
					}
					return
				}
				without[way](&with)
				if code, _ := serve(&with, 1); code != want {
					t.Errorf("%s, %v: %d without a retry, want %d", way, p, code, want)
				}
				if got := f.requests(); len(got) > 1 {
					t.Errorf("%s, %v: %d requests without a retry", way, p, len(got))
				}
			})
		}
	}
}

// A request that the upstream may have acted upon is sent twice only if its method is
// idempotent or the route allows it.
func TestMethodsThatAreRetried(t *testing.T) {
	w := newTestbed(t)
	for way, build := range ways {
		for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
			for method, idempotent := range map[string]bool{"GET": true, "HEAD": true, "OPTIONS": true, "PUT": true, "DELETE": true, "POST": false, "PATCH": false, "get": false} {
				for _, named := range []bool{false, true} {
					back, f := build(w, p, 1)
					if back == nil {
						continue
					}
					r := everything
					r.Methods = []string{"CHECKOUT"}
					if named {
						r.Methods = append(r.Methods, method)
					}
					_, address := w.gateway(fixed(&Table{Default: retried(back, r)}))
					c := w.dial(address)
					fmt.Fprintf(c, "%s / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", method)
					res, _ := c.answer(t, method)
					c.Close()
					again := idempotent || named || way == "no connection" || way == "refused stream" || way == "going away"
					if (res.StatusCode == 200) != again {
						t.Errorf("%s, %v: %s (named %v) was answered %d after %q", way, p, method, named, res.StatusCode, f.requests())
					}
				}
			}
		}
	}
}

func TestEachTryGoesToAnotherEndpoint(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		w := newTestbed(t)
		var all []*failingFirst
		var addresses []string
		for range 3 {
			f := &failingFirst{fails: 1}
			all = append(all, f)
			addresses = append(addresses, w.server(f.handler(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "", http.StatusServiceUnavailable) }), "h2", "http/1.1"))
		}
		r := everything
		r.Attempts = 4
		_, address := w.gateway(fixed(&Table{Default: retried(w.back(p, addresses...), r)}))
		if code, _ := w.get(w.browser(), "http://"+address); code != 200 {
			t.Errorf("%d", code)
		}
		counts := []int{}
		for _, f := range all {
			counts = append(counts, len(f.requests()))
		}
		slices.Sort(counts)
		if !slices.Equal(counts, []int{1, 1, 2}) {
			t.Errorf("%v: endpoints had %v tries", p, counts)
		}
	}
}

// Within a try, an endpoint that refuses connections is skipped.
func TestDeadEndpointsDoNotCountAsTries(t *testing.T) {
	w := newTestbed(t)
	f := &failingFirst{fails: 1}
	good := w.server(f.handler(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	r := everything
	r.ConnectFailure = false
	_, address := w.gateway(fixed(&Table{Default: retried(w.back(backs.HTTP1, w.closed(), good, w.closed(), w.closed()), r)}))
	for i := range 5 {
		if code, _ := w.get(w.browser(), "http://"+address); code != 200 {
			t.Errorf("request %d: %d", i, code)
		}
	}
}

// Once part of a response was forwarded, the request is not retried, even if the
// response breaks off.
func TestNoRetryAfterResponseWasForwarded(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			tries, read := make(chan string, 10), make(chan bool, 10)
			r := everything
			table.Default = retried(w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
				tries <- req.URL.Path
				if req.URL.Path == "/hints" {
					rw.WriteHeader(103)
				} else {
					fmt.Fprint(rw, "half")
					_ = http.NewResponseController(rw).Flush()
				}
				<-read
				panic(http.ErrAbortHandler)
			}), "h2", "http/1.1")), r)
			_, address := w.gateway(fixed(table))
			res, err := w.browser().Get(scheme + "://" + address + "/half")
			if err != nil {
				t.Fatal(err)
			}
			half := make([]byte, 4)
			_, _ = io.ReadFull(res.Body, half)
			read <- true
			if more, err := io.ReadAll(res.Body); err == nil || string(half) != "half" {
				t.Errorf("%q and %q, %v", half, more, err)
			}
			res.Body.Close()
			req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(int, textproto.MIMEHeader) error { read <- true; return nil },
			}), "GET", scheme+"://"+address+"/hints", nil)
			if res, err = w.browser().Do(req); err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 502 || len(tries) != 2 {
				t.Errorf("hints, and then %d, in %d tries", res.StatusCode, len(tries)-1)
			}
		})
	}
}

func TestUpgradesAreNotRetried(t *testing.T) {
	w := newTestbed(t)
	tries := make(chan bool, 10)
	_, address := w.gateway(fixed(&Table{Default: retried(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		tries <- true
		http.Error(rw, "not now", http.StatusServiceUnavailable)
	}))), everything)}))
	c := w.dial(address)
	c.send("GET / HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: websocket")
	if res, body := c.answer(t, "GET"); res.StatusCode != 503 || body != "not now\n" || len(tries) != 1 {
		t.Errorf("%d %q after %d tries", res.StatusCode, body, len(tries))
	}
}

// A gRPC server reports a failure in a response that consists of the status
// alone.
func TestUnavailableServersOfGRPC(t *testing.T) {
	for status, want := range map[string]int{"14": 3, "13": 1, "0": 1} {
		w := newTestbed(t)
		f := &failingFirst{fails: 2}
		r := everything
		r.Attempts = 3
		_, address := w.gateway(fixed(&Table{Default: retried(w.back(backs.HTTP2, w.server(f.handler(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/grpc")
			rw.Header().Set("Grpc-Status", status)
		}), "h2")), r)}))
		w.grpc(w.browser(), "http://"+address)
		if got := len(f.requests()); got != want {
			t.Errorf("status %s: %d tries, want %d", status, got, want)
		}
	}
}

// A connection whose response was discarded carries the next try.
func TestDiscardedResponsesKeepTheirConnection(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		w := newTestbed(t)
		back, f := newFailingFirst(w, p, 5, 503)
		r := everything
		r.Attempts = 6
		_, address := w.gateway(fixed(&Table{Default: retried(back, r)}))
		res, err := w.browser().Post("http://"+address, "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 || len(f.requests()) != 6 {
			t.Errorf("%v: %d after %d tries", p, res.StatusCode, len(f.requests()))
		}
		if st := back.Upstream().Status()[0]; st.Made != 1 || st.Requests != 6 {
			t.Errorf("%v: %d requests on %d connections", p, st.Requests, st.Made)
		}
	}
}

func TestTheLastFailureIsAnswered(t *testing.T) {
	w := newTestbed(t)
	f := &failingFirst{fails: 100}
	_, address := w.gateway(fixed(&Table{Default: retried(w.back(backs.HTTP1, w.server(f.handler(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("X-Try", fmt.Sprint(len(f.requests())))
		rw.WriteHeader(503)
		fmt.Fprint(rw, "busy")
	}))), everything)}))
	res, err := w.browser().Get("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != 503 || string(body) != "busy" || !slices.Equal(res.Header["X-Try"], []string{"2"}) {
		t.Errorf("%d %q %v", res.StatusCode, body, res.Header)
	}
}

// Without budget for a retry, the client gets the upstream's failure.
func TestRetryBudgetLimitsRetries(t *testing.T) {
	w := newTestbed(t)
	for least, want := range map[int]int{0: 503, 1: 200} {
		f := &failingFirst{fails: 1}
		back := w.budgeted(upstream.RetryBudget{Min: least}, w.server(f.handler(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "", http.StatusServiceUnavailable) })))
		_, address := w.gateway(fixed(&Table{Default: retried(back, everything)}))
		for range 3 { // a retry releases its share of the budget when it ends
			f.mu.Lock()
			f.fails = 1
			f.mu.Unlock()
			if code, _ := w.get(w.browser(), "http://"+address); code != want {
				t.Errorf("with %d: %d, want %d", least, code, want)
			}
		}
		if made, refused := back.Upstream().Retries().Counts(); made != uint64(3*least) || refused != uint64(3-3*least) {
			t.Errorf("%d made, %d refused", made, refused)
		}
	}
}

// budgeted returns a Back of HTTP/1.1 with a budget of retries.
func (w *testbed) budgeted(b upstream.RetryBudget, addresses ...string) *backs.Pools {
	o := upstream.Options{Name: "up", Logger: w.logger(hclog.Warn), RetryBudget: &b, ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout}
	for _, a := range addresses {
		o.Endpoints = append(o.Endpoints, upstream.EndpointOptions{Network: "tcp", Address: a, Stream: w.client(), HTTP: w.client("http/1.1")})
	}
	return w.newBack(backs.Options{Upstream: upstream.New(o), Protocol: backs.HTTP1, TLS: true})
}

func TestPauseBetweenTriesHoldsNoEndpoint(t *testing.T) {
	w := newTestbed(t)
	failed := make(chan bool, 100)
	back := w.limited(backs.HTTP1, upstream.Limits{RequestsPerEndpoint: 1}, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fails" {
			rw.WriteHeader(http.StatusServiceUnavailable)
			failed <- true
		}
	})))
	_, address := w.gateway(fixed(&Table{Default: retried(back, exchange.Retry{Codes: []int{503}, Attempts: 100, Backoff: 10 * time.Second})}))
	c := w.dial(address)
	c.send("GET /fails HTTP/1.1", "Host: a")
	<-failed
	other := w.browser()
	eventually(t, "another request is served", func() bool {
		code, _ := w.get(other, "http://"+address+"/works")
		return code == 200
	})
}
