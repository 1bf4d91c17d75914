package l7

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// heldHandler is an upstream handler that answers once it is released.
type heldHandler struct{ arrived, release chan struct{} }

func newHeldHandler() *heldHandler {
	return &heldHandler{make(chan struct{}, 100), make(chan struct{})}
}

func (h *heldHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/held") {
		h.arrived <- struct{}{}
		<-h.release
	}
	fmt.Fprint(w, "done")
}

func TestConcurrentRequestsAreLimited(t *testing.T) {
	for _, c := range []struct {
		limits limit.Limits
		kind   limit.Kind
		code   int
	}{
		{limit.Limits{AtOnce: 2}, limit.AtOnce, 503},
		{limit.Limits{AtOncePerClient: 2}, limit.AtOncePerClient, 429},
		{limit.Limits{AtOnce: 3, AtOncePerClient: 2}, limit.AtOncePerClient, 429},
	} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			h := newHeldHandler()
			table.Default, table.Limits = to(w.back(backs.HTTP1, w.server(h))), c.limits
			s, address := w.gateway(fixed(table))
			url, browser := scheme+"://"+address, w.browser()
			var all sync.WaitGroup
			for range 2 {
				all.Go(func() {
					if code, body := w.get(browser, url+"/held"); code != 200 || body != "done" {
						t.Errorf("a request within the limit: %d %q", code, body)
					}
				})
				<-h.arrived
			}
			for range 3 {
				res, err := browser.Get(url)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if want := map[int]string{503: "service unavailable\n", 429: "too many requests\n"}[c.code]; res.StatusCode != c.code || string(body) != want || res.Header.Get("Retry-After") != "1" {
					t.Errorf("a request above the limit: %d %q %v", res.StatusCode, body, res.Header)
				}
			}
			if status := w.grpc(browser, url); status != "14" {
				t.Errorf("gRPC status %q", status)
			}
			close(h.release)
			all.Wait()
			eventually(t, "there is room", func() bool { return s.Stats().InFlight == 0 })
			for range 5 {
				if code, _ := w.get(browser, url); code != 200 {
					t.Errorf("a later request: %d", code)
				}
			}
			want := map[limit.Kind]uint64{limit.AtOnce: 0, limit.AtOncePerClient: 0, limit.OfRate: 0, limit.OfRatePerClient: 0}
			want[c.kind] = 4
			if st := s.Stats(); !maps.Equal(st.Limited, want) || st.Requests[c.code] != 3 {
				t.Errorf("counted: %v, %v", st.Limited, st.Requests)
			}
		})
	}
}

// A client that has received a complete response may send its next request at once:
// the previous request no longer counts.
func TestAnsweredRequestLeavesTheCount(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			back := w.limited(p, upstream.Limits{Requests: 1, RequestsPerEndpoint: 1}, w.server(echo, "h2", "http/1.1"))
			table.Default, table.Limits = to(back), limit.Limits{AtOnce: 1, AtOncePerClient: 1}
			table.Routes = w.routes(route.Rule[*Action]{Name: "fixed", Path: route.Path{Kind: route.PathExact, Value: "/fixed"}, Value: &Action{Respond: &Respond{Body: "hello"}}})
			_, address := w.gateway(fixed(table))
			browsers := []*http.Client{w.browser(), w.browser()} // each browser has its own connection
			for i := range 300 {
				path := []string{"/fixed", "/", "/long"}[i%3]
				body := strings.NewReader(strings.Repeat("x", i%3*30_000))
				res, err := browsers[i%2].Post(scheme+"://"+address+path, "text/plain", body)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
					t.Fatalf("request %d: %d, %v", i, res.StatusCode, err)
				}
				res.Body.Close()
			}
		})
	}
}

// grpc makes a gRPC call without a message, and returns the status of its
// response.
func (w *testbed) grpc(c *http.Client, url string) string {
	w.Helper()
	r, _ := http.NewRequest("POST", url, nil)
	r.Header.Set("Content-Type", "application/grpc")
	res, err := c.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	res.Body.Close()
	return res.Header.Get("Grpc-Status")
}

func TestRequestRateIsLimited(t *testing.T) {
	hourly := limit.Rate{Count: 4, Period: time.Hour}
	for _, c := range []struct {
		limits limit.Limits
		code   int
	}{
		{limit.Limits{Rate: hourly}, 503},
		{limit.Limits{RatePerClient: hourly}, 429},
		{limit.Limits{Rate: hourly, RatePerClient: hourly}, 429},
	} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			table.Default, table.Limits = to(w.back(backs.HTTP1, w.server(echo))), c.limits
			_, address := w.gateway(fixed(table))
			browser := w.browser()
			for range 4 {
				if code, _ := w.get(browser, scheme+"://"+address); code != 200 {
					t.Errorf("a request within the limit: %d", code)
				}
			}
			for range 3 {
				res, err := browser.Get(scheme + "://" + address)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if wait, _ := strconv.Atoi(res.Header.Get("Retry-After")); res.StatusCode != c.code || wait < 800 || wait > 900 {
					t.Errorf("a request above the limit: %d %v", res.StatusCode, res.Header)
				}
			}
		})
	}
}

// Another client's requests are still served.
func TestLimitedClientDoesNotAffectOthers(t *testing.T) {
	w := newTestbed(t)
	_, address := w.gateway(fixed(&Table{Default: to(w.back(backs.HTTP1, w.server(echo))), ProxyProtocol: w.trust("127.0.0.1"),
		Limits: limit.Limits{RatePerClient: limit.Rate{Count: 2, Period: time.Hour}, Rate: limit.Rate{Count: 5, Period: time.Hour}}}))
	for _, c := range []struct {
		client string
		codes  []int
	}{
		{"192.0.2.1", []int{200, 200, 429, 429, 429, 429}},
		{"192.0.2.1", []int{429}}, // on another connection
		{"2001:db8::1", []int{200}},
		{"2001:db8::2", []int{200, 429}}, // in the same network
		{"2001:db8:0:1::2", []int{200, 503}},
	} {
		conn := w.dial(address)
		fmt.Fprintf(conn, "PROXY %s %s %s 1 2\r\n", map[bool]string{true: "TCP6", false: "TCP4"}[strings.Contains(c.client, ":")], c.client, c.client)
		for i, want := range c.codes {
			conn.send("GET / HTTP/1.1", "Host: a")
			if res, _ := conn.answer(t, "GET"); res.StatusCode != want || res.Close {
				t.Errorf("%s, request %d: %d, want %d", c.client, i, res.StatusCode, want)
			}
		}
		conn.Close()
	}
}

// A trusted proxy names the client. A client that connects directly cannot name
// another one.
func TestLimitsOfClientsBehindAProxy(t *testing.T) {
	w := newTestbed(t)
	proxies, _ := cidr.ParsePeers([]string{"127.0.0.1"})
	for _, trusted := range []bool{true, false} {
		table := &Table{Default: to(w.back(backs.HTTP1, w.server(echo))), Limits: limit.Limits{RatePerClient: limit.Rate{Count: 1, Period: time.Hour}}}
		if trusted {
			table.TrustedProxies = proxies
		}
		_, address := w.gateway(fixed(table))
		c := w.dial(address)
		for i, client := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"} {
			c.send("GET / HTTP/1.1", "Host: a", "X-Forwarded-For: "+client)
			want := 200
			if trusted && i == 2 || !trusted && i > 0 {
				want = 429
			}
			if res, _ := c.answer(t, "GET"); res.StatusCode != want {
				t.Errorf("trusted %v: request %d was answered %d, want %d", trusted, i, res.StatusCode, want)
			}
		}
		c.Close()
	}
}

// A body that exceeds the limit never looks complete to the upstream. If its declared
// length is too large, the upstream does not receive a byte.
func TestBodiesAreLimited(t *testing.T) {
	const most = 100_000
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			type seen struct {
				n   int64
				err error
			}
			got := make(chan seen, 100)
			table.Default, table.MaxBody = to(w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/at-once" {
					control := http.NewResponseController(rw)
					if r.ProtoMajor == 1 {
						_ = control.EnableFullDuplex()
					}
					_ = control.Flush()
				}
				n, err := io.Copy(io.Discard, r.Body)
				got <- seen{n, err}
				if err != nil {
					panic(http.ErrAbortHandler)
				}
			}), "h2", "http/1.1"))), most
			s, address := w.gateway(fixed(table))
			browser := w.browser()
			post := func(path string, n int, sized bool, kind string) (*http.Response, error) {
				var body io.Reader = bytes.NewReader(make([]byte, n))
				if !sized {
					body = struct{ io.Reader }{body}
				}
				r, _ := http.NewRequest("POST", scheme+"://"+address+path, body)
				r.Header.Set("Content-Type", kind)
				res, err := browser.Do(r)
				if err == nil {
					_, err = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				return res, err
			}
			for _, sized := range []bool{true, false} {
				for _, n := range []int{0, 1, most - 1, most, most + 1, 10 * most} {
					name := fmt.Sprintf("%d bytes, sized %v", n, sized)
					res, err := post("/", n, sized, "text/plain")
					if n <= most {
						if err != nil || res.StatusCode != 200 {
							t.Fatalf("%s: %v, %v", name, res, err)
						}
						if g := <-got; g.n != int64(n) || g.err != nil {
							t.Errorf("%s: the upstream had %d, %v", name, g.n, g.err)
						}
						continue
					}
					// A client that is still sending may not read the response.
					if err == nil && res.StatusCode != 413 {
						t.Errorf("%s: %d", name, res.StatusCode)
					}
					if err != nil && scheme == "https" {
						t.Errorf("%s: %v", name, err)
					}
					if !sized {
						if g := <-got; g.n > most || g.err == nil {
							t.Errorf("%s: the upstream had %d, %v", name, g.n, g.err)
						}
					}
				}
			}
			if res, err := post("/", most+1, true, "application/grpc"); err != nil || res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "8" {
				t.Errorf("gRPC: %v, %v", res, err)
			}
			// The response has begun, so the gateway can only break it off.
			body, rest := io.Pipe()
			res, err := browser.Post(scheme+"://"+address+"/at-once", "text/plain", body)
			if err != nil || res.StatusCode != 200 {
				t.Fatalf("a request that is answered at once: %v, %v", res, err)
			}
			go func() {
				_, _ = rest.Write(make([]byte, 10*most))
				rest.Close()
			}()
			if _, err := io.Copy(io.Discard, res.Body); err == nil {
				t.Error("a response that had begun ended as complete")
			}
			res.Body.Close()
			if g := <-got; g.n > most || g.err == nil {
				t.Errorf("the upstream had %d, %v", g.n, g.err)
			}
			if len(got) > 0 {
				t.Errorf("the upstream had %d requests too many", len(got))
			}
			eventually(t, "no request is in progress", func() bool { return s.Stats().InFlight == 0 })
		})
	}
}

func TestTooLargeBodyGetsNoContinue(t *testing.T) {
	w := newTestbed(t)
	_, address := w.gateway(fixed(&Table{Default: to(w.back(backs.HTTP1, w.server(echo))), MaxBody: 5}))
	c := w.dial(address)
	c.send("POST / HTTP/1.1", "Host: a", "Content-Length: 6", "Expect: 100-continue")
	if res, body := c.answer(t, "POST"); res.StatusCode != 413 || body != "content too large\n" || !res.Close && c.rest() != "" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
	c = w.dial(address)
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello!\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
	if res, _ := c.answer(t, "POST"); res.StatusCode != 413 || !res.Close || c.rest() != "" {
		t.Errorf("%d, close %v", res.StatusCode, res.Close)
	}
}

// rest returns the bytes that arrive until the connection ends.
func (c *rawConn) rest() string {
	b, _ := io.ReadAll(c.r)
	return string(b)
}

func TestRequestsPerConnectionAreLimited(t *testing.T) {
	schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
		table.Default, table.MaxRequests = to(w.back(backs.HTTP1, w.server(echo))), 3
		s, address := w.gateway(fixed(table))
		browser := w.browser()
		for i := range 9 {
			res, err := browser.Get(scheme + "://" + address)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if last := i%3 == 2; res.StatusCode != 200 || scheme == "http" && res.Close != last {
				t.Errorf("request %d: %d, close %v", i, res.StatusCode, res.Close)
			}
			if i%3 == 2 { // an HTTP/2 client may send a few more requests until it reads GOAWAY
				eventually(t, "the connection is closed", func() bool { return s.Stats().Open == 0 })
			}
		}
		if n := s.Stats().Accepted; n != 3 {
			t.Errorf("9 requests on %d connections", n)
		}
	})
}

// An idle connection is closed when it reaches the maximum age, a busy connection
// when its requests have ended.
func TestConnectionAgeIsLimited(t *testing.T) {
	t.Parallel()
	schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
		withGrowingLimit(t, time.Second, func(limit time.Duration) bool {
			table := *table
			table.MaxAge, table.IdleTimeout = limit, time.Hour
			return ageIsLimited(t, w, &table, scheme)
		})
	})
}

func ageIsLimited(t *testing.T, w *testbed, table *Table, scheme string) (inTime bool) {
	h := newHeldHandler()
	table.Default = to(w.back(backs.HTTP1, w.server(h)))
	s, address := w.gateway(fixed(table))
	browser, url := w.browser(), scheme+"://"+address
	res, err := browser.Get(url)
	if err != nil {
		return false // the connection was closed before its request came
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	eventually(t, "an idle connection is closed", func() bool { return s.Stats().Open == 0 })

	got := make(chan *http.Response, 1)
	go func() {
		defer close(got)
		res, err := browser.Get(url + "/held")
		if err != nil {
			return
		}
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "done" {
			t.Errorf("a slow request: %q, %v", body, err)
		}
		got <- res
	}()
	select {
	case <-h.arrived:
	case <-got:
		return false // as above
	}
	began := s.clock.now.Load()
	eventually(t, "the connection is old", func() bool { return s.clock.now.Load()-began > int64(table.MaxAge*6/5) })
	close(h.release)
	res, ok := <-got
	switch {
	case !ok:
		t.Error("a slow request failed")
	case scheme == "http" && !res.Close:
		t.Error("the response does not announce the end of the connection")
	}
	eventually(t, "the connection is closed", func() bool { return s.Stats().Open == 0 })
	n := s.Stats().Accepted
	if n < 2 {
		t.Errorf("%d connections", n)
	}
	return n == 2 // otherwise a connection was closed before its request came, and the client repeated it
}

func TestAgesDiffer(t *testing.T) {
	st, ages := settings{maxAge: time.Hour}, map[time.Duration]bool{}
	for range 1000 {
		age := st.age()
		if ages[age] = true; age > time.Hour || age < 54*time.Minute {
			t.Fatalf("%v", age)
		}
	}
	if len(ages) < 900 {
		t.Errorf("%d ages of 1000", len(ages))
	}
	if (settings{}).age() != 0 {
		t.Error("without a limit")
	}
}
