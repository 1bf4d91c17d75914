package l7

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

func TestIsTraceparent(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for s, want := range map[string]bool{
		good: true,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00":       true,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff":       true,
		"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":       true, // to come
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what?": true,
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-":      true,
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what":  false,
		good + "-":         false,
		good + "0":         false,
		good[:54]:          false,
		"":                 false,
		good[1:]:           false,
		" " + good:         false,
		good + ", " + good: false,
		"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": false,
		"0X-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false,
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-B7AD6B7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0X": false,
		"00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01": false,
		"00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01": false,
	} {
		if got := isTraceparent(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestTracesAreMadeWhereThereIsNone(t *testing.T) {
	const given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	made := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`)
	ids := map[string]bool{}
	for name, c := range map[string]struct {
		fields message.Fields
		kept   bool
		state  bool // tracestate is kept
	}{
		"none":               {nil, false, false},
		"one":                {fields("Traceparent: "+given, "tracestate: a=b"), true, true},
		"malformed":          {fields("traceparent: 00-"+given, "Tracestate: a=b", "tracestate: c=d"), false, false},
		"two":                {fields("traceparent: "+given, "traceparent: "+given, "tracestate: a=b"), false, false},
		"a state alone":      {fields("tracestate: a=b"), false, false},
		"two states":         {fields("traceparent: "+given, "tracestate: a=b", "tracestate: c=d"), true, true},
		"uppercase":          {fields("traceparent: " + strings.ToUpper(given)), false, false},
		"named for this hop": {fields("traceparent: "+given, "tracestate: a=b", "Connection: traceparent"), false, false},
	} {
		x := exchangeOf(&Table{MakeTrace: true}, "10.0.0.1:1", slices.Clone(c.fields))
		cleanRequest(x.request)
		x.makeTrace()
		got := slices.Collect(x.request.Fields.Values("traceparent"))
		switch {
		case len(got) != 1:
			t.Errorf("%s: %v", name, x.request.Fields)
		case c.kept && got[0] != given, !c.kept && (got[0] == given || !made.MatchString(got[0]) || ids[got[0]]):
			t.Errorf("%s: %v", name, got)
		case x.request.Fields.Has("tracestate") != c.state:
			t.Errorf("%s: %v", name, x.request.Fields)
		case x.traceID() != got[0][3:35]:
			t.Errorf("%s: the trace is %q", name, x.traceID())
		}
		if len(got) == 1 {
			ids[got[0]] = true
		}
		x = exchangeOf(&Table{}, "10.0.0.1:1", slices.Clone(c.fields))
		if x.makeTrace(); !slices.Equal(x.request.Fields, c.fields) {
			t.Errorf("%s: passed on as %v", name, x.request.Fields)
		}
	}
}

func TestRequestIDs(t *testing.T) {
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	long := strings.Repeat("a", maxRequestID)
	last := ""
	for _, c := range []struct {
		fields message.Fields
		want   string // "": a new one
	}{
		{nil, ""},
		{fields("X-Request-Id: abc"), "abc"},
		{fields("x-request-id: 0Aa-._~+/=:@"), "0Aa-._~+/=:@"},
		{fields("X-Request-Id: " + long), long},
		{fields("X-Request-Id: " + long + "a"), ""},
		{fields("X-Request-Id: "), ""},
		{fields("X-Request-Id: a b"), ""},
		{fields("X-Request-Id: a,b"), ""},
		{fields("X-Request-Id: a\"b"), ""},
		{fields("X-Request-Id: a;b"), ""},
		{fields("X-Request-Id: <b>"), ""},
		{fields("X-Request-Id: \x1b[31m"), ""},
		{fields("X-Request-Id: ü"), ""},
		{fields("X-Request-Id: a", "X-Request-Id: a"), ""},
		{fields("X-Request-Id: a", "X_Request_Id: b"), ""},
		{fields("X_Request_Id: b"), ""},
	} {
		x := exchangeOf(&Table{RequestIDField: "X-Request-Id"}, "10.0.0.1:1", slices.Clone(c.fields))
		x.nameRequest()
		x.setRequestID()
		if c.want == "" {
			if !uuid.MatchString(x.requestID) || x.requestID == last {
				t.Errorf("%v: made %q after %q", c.fields, x.requestID, last)
			}
			last = x.requestID
		} else if x.requestID != c.want {
			t.Errorf("%v: %q, want %q", c.fields, x.requestID, c.want)
		}
		if !slices.Equal(x.request.Fields, fields("X-Request-Id: "+x.requestID)) {
			t.Errorf("%v: passed on as %v", c.fields, x.request.Fields)
		}
	}
	x := exchangeOf(&Table{}, "10.0.0.1:1", fields("X-Request-Id: a b"))
	x.nameRequest()
	x.setRequestID()
	if x.requestID != "" || !slices.Equal(x.request.Fields, fields("X-Request-Id: a b")) {
		t.Errorf("without ids: %q %v", x.requestID, x.request.Fields)
	}
	for name, ok := range map[string]bool{"X-Request-Id": true, "X-Correlation_ID": true, "": false, "a b": false, "Host": false, "X-Forwarded-For": false, "x_client_cert": false, "Traceparent": false} {
		if err := CheckRequestIDField(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Each response has its request's id, whoever answers, and the upstream has seen
// the same.
func TestResponsesHaveTheRequestsID(t *testing.T) {
	for _, p := range []Protocol{HTTP1, HTTP2} {
		schemes(t, func(t *testing.T, w *world, table *Table, scheme string) {
			back := w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("X-Request-Id", "the upstream's own")
				io.WriteString(rw, strings.Join(r.Header.Values("X-Request-Id"), ",")+" "+r.Header.Get("Traceparent"))
			}), "h2", "http/1.1"))
			gone := w.back(HTTP1, w.closed())
			exact := func(p string) route.Path { return route.Path{Kind: route.PathExact, Value: p} }
			table.RequestIDField, table.MakeTrace = "X-Request-Id", true
			table.Routes = w.routes(
				route.Rule[*Action]{Name: "forward", Path: exact("/forward"), Value: to(back)},
				route.Rule[*Action]{Name: "gone", Path: exact("/gone"), Value: to(gone)},
				route.Rule[*Action]{Name: "respond", Path: exact("/respond"), Value: &Action{Respond: &Respond{}}},
				route.Rule[*Action]{Name: "redirect", Path: exact("/redirect"), Value: &Action{Redirect: &Redirect{Host: "b"}}},
				route.Rule[*Action]{Name: "silent", Path: exact("/silent"), Value: &Action{Respond: &Respond{}, ResponseHeaders: HeaderRules{Remove: []string{"X-Request-Id"}}}},
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
						t.Errorf("given %q: the upstream was told %q", given, body)
					}
				}
			}
			if res, err := browser.Get(scheme + "://" + address + "/silent"); err != nil || res.Header.Get("X-Request-Id") != "" {
				t.Errorf("a rule does not remove it: %v, %v", res, err)
			}
			if !strings.Contains(w.log.String(), "request_id=id-1 trace=") {
				t.Error("the log does not tell")
			}
		})
	}
}

// A gRPC call begins a trace as any request does.
func TestCallsHaveTraces(t *testing.T) {
	w := newWorld(t)
	told := make(chan string, 1)
	table := &Table{MakeTrace: true, RequestIDField: "X-Request-Id", Default: to(w.back(HTTP2, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		told <- r.Header.Get("Traceparent") + " " + strings.Join(slices.Collect(func(yield func(string) bool) {
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
	trace, trailers, _ := strings.Cut(<-told, " ")
	if !isTraceparent(trace) || trailers != "Sum" || res.Header.Get("X-Request-Id") == "" {
		t.Errorf("trace %q, trailers %q, %v", trace, trailers, res.Header)
	}
}

func TestEntropyRepeatsNothing(t *testing.T) {
	var e entropy
	var mu sync.Mutex
	seen := map[[16]byte]bool{}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 1000 {
				var p [16]byte
				e.read(p[:])
				mu.Lock()
				if seen[p] || bytes.Equal(p[:], make([]byte, 16)) {
					t.Errorf("%x again", p)
				}
				seen[p] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if raceEnabled() {
		return // where a sync.Pool forgets at random
	}
	var p [24]byte
	if n := testing.AllocsPerRun(1000, func() { e.read(p[:]) }); n > 0.1 {
		t.Errorf("%v allocations", n)
	}
}
