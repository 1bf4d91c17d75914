package policy

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

func TestIsTraceparent(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for s, want := range map[string]bool{
		good: true,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00":       true,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff":       true,
		"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":       true, // a future version
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

func TestTraceIsAddedWhenMissing(t *testing.T) {
	const given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	made := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`)
	ids := map[string]bool{}
	for name, c := range map[string]struct {
		fields message.Fields
		kept   bool
		state  bool // tracestate is kept
	}{
		"no traceparent":                     {nil, false, false},
		"one traceparent":                    {fields("Traceparent: "+given, "tracestate: a=b"), true, true},
		"malformed":                          {fields("traceparent: 00-"+given, "Tracestate: a=b", "tracestate: c=d"), false, false},
		"two traceparents":                   {fields("traceparent: "+given, "traceparent: "+given, "tracestate: a=b"), false, false},
		"a tracestate without a traceparent": {fields("tracestate: a=b"), false, false},
		"two states":                         {fields("traceparent: "+given, "tracestate: a=b", "tracestate: c=d"), true, true},
		"uppercase":                          {fields("traceparent: " + strings.ToUpper(given)), false, false},
		"named for this hop":                 {fields("traceparent: "+given, "tracestate: a=b", "Connection: traceparent"), false, false},
	} {
		x := factsOf("10.0.0.1:1", slices.Clone(c.fields))
		CleanRequest(x.Request, &Spelling{})
		BeginTrace(&x.Request.Fields, new(Entropy))
		got := slices.Collect(x.Request.Fields.Values("traceparent"))
		switch {
		case len(got) != 1:
			t.Errorf("%s: %v", name, x.Request.Fields)
		case c.kept && got[0] != given, !c.kept && (got[0] == given || !made.MatchString(got[0]) || ids[got[0]]):
			t.Errorf("%s: %v", name, got)
		case x.Request.Fields.Has("tracestate") != c.state:
			t.Errorf("%s: %v", name, x.Request.Fields)
		case TraceID(x.Request.Fields) != got[0][3:35]:
			t.Errorf("%s: the trace is %q", name, TraceID(x.Request.Fields))
		}
		if len(got) == 1 {
			ids[got[0]] = true
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
		x := factsOf("10.0.0.1:1", slices.Clone(c.fields))
		x.AssignRequestID("X-Request-Id", time.Now(), new(Entropy))
		x.SetRequestID("X-Request-Id")
		if c.want == "" {
			if !uuid.MatchString(x.RequestID) || x.RequestID == last {
				t.Errorf("%v: made %q after %q", c.fields, x.RequestID, last)
			}
			last = x.RequestID
		} else if x.RequestID != c.want {
			t.Errorf("%v: %q, want %q", c.fields, x.RequestID, c.want)
		}
		if !slices.Equal(x.Request.Fields, fields("X-Request-Id: "+x.RequestID)) {
			t.Errorf("%v: forwarded as %v", c.fields, x.Request.Fields)
		}
	}
	x := factsOf("10.0.0.1:1", fields("X-Request-Id: a b"))
	x.AssignRequestID("", time.Now(), new(Entropy))
	x.SetRequestID("")
	if x.RequestID != "" || !slices.Equal(x.Request.Fields, fields("X-Request-Id: a b")) {
		t.Errorf("without ids: %q %v", x.RequestID, x.Request.Fields)
	}
	for name, ok := range map[string]bool{"X-Request-Id": true, "X-Correlation_ID": true, "": false, "a b": false, "Host": false, "X-Forwarded-For": false, "x_client_cert": false, "Traceparent": false} {
		if err := CheckRequestIDField(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
