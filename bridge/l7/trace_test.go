package l7

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

// Each response carries its request's ID, whether the upstream or the gateway
// responds. The upstream receives the same ID.
func TestResponsesHaveTheRequestsID(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			back := w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("X-Request-Id", "an ID of the upstream")
				io.WriteString(rw, strings.Join(r.Header.Values("X-Request-Id"), ",")+" "+r.Header.Get("Traceparent"))
			}), "h2", "http/1.1"))
			gone := w.back(backs.HTTP1, w.closed())
			exact := func(p string) route.Path { return route.Path{Kind: route.PathExact, Value: p} }
			table.RequestIDField, table.MakeTrace = "X-Request-Id", true
			table.Routes = w.routes(
				route.Rule[*Action]{Name: "forward", Path: exact("/forward"), Value: to(back)},
				route.Rule[*Action]{Name: "gone", Path: exact("/gone"), Value: to(gone)},
				route.Rule[*Action]{Name: "respond", Path: exact("/respond"), Value: &Action{Respond: &Respond{}}},
				route.Rule[*Action]{Name: "redirect", Path: exact("/redirect"), Value: &Action{Redirect: &Redirect{Host: "b"}}},
				route.Rule[*Action]{Name: "silent", Path: exact("/silent"), Value: &Action{Respond: &Respond{}, ResponseHeaders: policy.HeaderRules{Remove: []string{"X-Request-Id"}}}},
			)
			_, address := w.gateway(fixed(table))
			browser := w.browser()
			for path, code := range map[string]int{"/forward": 200, "/gone": 502, "/respond": 200, "/redirect": 302, "/none": 404, "/%00": 400} {
				for _, given := range []string{"", "id-1"} {
					r, _ := http.NewRequest("GET", scheme+"://"+address+path, nil)
					if given != "" {
						r.Header.Set("X-Request-Id", given)
					}
					res, err := browser.Do(r)
					if err != nil {
						t.Fatal(err)
					}
					body, _ := io.ReadAll(res.Body)
					res.Body.Close()
					ids := res.Header.Values("X-Request-Id")
					if res.StatusCode != code || len(ids) != 1 || given != "" && ids[0] != given || len(ids[0]) != 36 && given == "" {
						t.Errorf("%s, given %q: %d, %q", path, given, res.StatusCode, ids)
						continue
					}
					id, trace, _ := strings.Cut(string(body), " ")
					if path == "/forward" && (id != ids[0] || !isTraceparent(trace)) {
						t.Errorf("given %q: the upstream received %q", given, body)
					}
				}
			}
			if res, err := browser.Get(scheme + "://" + address + "/silent"); err != nil || res.Header.Get("X-Request-Id") != "" {
				t.Errorf("the rule did not remove the request ID: %v, %v", res, err)
			}
			if !strings.Contains(w.log.String(), "request_id=id-1 trace=") {
				t.Error("the log lacks the request ID")
			}
		})
	}
}

// A gRPC call begins a trace like any request.
func TestCallsHaveTraces(t *testing.T) {
	w := newTestbed(t)
	traces := make(chan string, 1)
	table := &Table{MakeTrace: true, RequestIDField: "X-Request-Id", Default: to(w.back(backs.HTTP2, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		traces <- r.Header.Get("Traceparent") + " " + strings.Join(slices.Collect(func(yield func(string) bool) {
			for name := range r.Trailer {
				if !yield(name) {
					return
				}
			}
		}), ",")
		rw.Header().Set("Content-Type", "application/grpc")
	}), "h2")))}
	table.TLS = w.listenerTLS("h2")
	_, address := w.gateway(fixed(table))
	r, _ := http.NewRequest("POST", "https://"+address+"/s/M", io.MultiReader(strings.NewReader("call")))
	r.Header.Set("Content-Type", "application/grpc")
	r.Trailer = http.Header{"Traceparent": {"forged"}, "Tracestate": {"forged"}, "X_request_id": {"forged"}, "Client-Cert": {":AAAA:"}, "Sum": {"1"}}
	res, err := w.browser().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	trace, trailers, _ := strings.Cut(<-traces, " ")
	if !isTraceparent(trace) || trailers != "Sum" || res.Header.Get("X-Request-Id") == "" {
		t.Errorf("trace %q, trailers %q, %v", trace, trailers, res.Header)
	}
}

// isTraceparent reports whether s is a valid traceparent.
func isTraceparent(s string) bool { return policy.TraceID(fields("traceparent: "+s)) != "" }

// Without MakeTrace, a valid or invalid trace is forwarded unchanged, and no new
// trace begins.
func TestTracesArePassedOnUnchanged(t *testing.T) {
	w := newTestbed(t)
	_, address := w.gateway(fixed(&Table{Default: to(w.back(backs.HTTP1, w.server(seen)))}))
	c := w.dial(address)
	c.send("GET / HTTP/1.1", "Host: a.example", "Traceparent: no trace", "Tracestate: a=b")
	if _, body := c.answer(t, "GET"); !strings.Contains(body, "Traceparent: no trace") || !strings.Contains(body, "Tracestate: a=b") {
		t.Errorf("%q", body)
	}
	c.send("GET / HTTP/1.1", "Host: a.example")
	if _, body := c.answer(t, "GET"); strings.Contains(body, "Trace") {
		t.Errorf("%q", body)
	}
}
