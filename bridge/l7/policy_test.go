package l7

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

func TestParseTarget(t *testing.T) {
	for _, c := range []struct {
		r    message.Request
		want target
	}{
		{message.Request{Method: "GET", Target: "/", Authority: "a"}, target{"a", "a", "/", ""}},
		{message.Request{Method: "GET", Target: "/a//b/%2e%2e/c?x=%2e%2e", Authority: "A.Example.:8443"}, target{"a.example", "a.example:8443", "/a/c", "?x=%2e%2e"}},
		{message.Request{Method: "GET", Target: "/?", Authority: "a:"}, target{"a", "a", "/", "?"}},
		{message.Request{Method: "GET", Target: "/?a?b", Authority: "[::0:1]:80"}, target{"[::1]", "[::1]:80", "/", "?a?b"}},
		{message.Request{Method: "GET", Target: "/", Authority: "[::1]"}, target{"[::1]", "[::1]", "/", ""}},
		{message.Request{Method: "OPTIONS", Target: "*", Authority: "a"}, target{"a", "a", "*", ""}},
		{message.Request{Method: "GET", Target: "/", Authority: "a", Fields: fields("host: A.")}, target{"a", "a", "/", ""}},
	} {
		if got, err := parseTarget(&c.r); err != nil || got != c.want {
			t.Errorf("%+v: %+v, %v; want %+v", c.r, got, err, c.want)
		}
	}
	for _, r := range []message.Request{
		{Method: "CONNECT", Target: "a:443", Authority: "a:443"},
		{Method: "GET", Target: "/"},
		{Method: "GET", Target: "/", Authority: "a b"},
		{Method: "GET", Target: "/", Authority: "a,b"},
		{Method: "GET", Target: "/", Authority: "user@a"},
		{Method: "GET", Target: "/", Authority: "a:x"},
		{Method: "GET", Target: "", Authority: "a"},
		{Method: "GET", Target: "a", Authority: "a"},
		{Method: "GET", Target: "*", Authority: "a"},
		{Method: "OPTIONS", Target: "*?x", Authority: "a"},
		{Method: "PRI", Target: "*", Authority: "a"},
		{Method: "GET", Target: "http://a/", Authority: "a"},
		{Method: "GET", Target: "/..", Authority: "a"},
		{Method: "GET", Target: "/a/..%2fb", Authority: "a"},
		{Method: "GET", Target: "/a\\b", Authority: "a"},
		{Method: "GET", Target: "/%00", Authority: "a"},
		{Method: "GET", Target: "/a#b", Authority: "a"},
		{Method: "GET", Target: "/a?b#c", Authority: "a"},
		{Method: "GET", Target: "/a?b c", Authority: "a"},
		{Method: "GET", Target: "/", Authority: "a", Fields: fields("Host: b")},
		{Method: "GET", Target: "/", Authority: "a", Fields: fields("Host: a", "host: b")},
		{Method: "GET / HTTP/1.1", Target: "/", Authority: "a"},
		{Method: "", Target: "/", Authority: "a"},
	} {
		if got, err := parseTarget(&r); err == nil {
			t.Errorf("%+v is taken for %+v", r, got)
		}
	}
}

func TestAbsoluteTargets(t *testing.T) {
	for _, c := range []struct{ target, host, authority, rest string }{
		{"http://a.example/x?y", "A.example", "a.example", "/x?y"},
		{"HTTPS://a", "a", "a", "/"},
		{"http://a?y", "a", "a", "/?y"},
		{"/x", "a", "a", "/x"},
		{"*", "a", "a", "*"},
		{"ftp://a/", "a", "", ""},
		{"http://b/", "a", "", ""},
		{"http://a:81/", "a", "", ""},
		{"http://user@a/", "a", "", ""},
		{"http://a#x", "a", "", ""},
	} {
		authority, rest, err := splitAbsolute(c.target, c.host)
		if authority != c.authority || rest != c.rest || (err == nil) != (c.rest != "") {
			t.Errorf("%s: %q %q, %v", c.target, authority, rest, err)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	f.Add("GET", "/a/../b?c", "A.example:80")
	f.Add("GET", "http://a/", "a")
	f.Fuzz(func(t *testing.T, method, requestTarget, authority string) {
		once, err := parseTarget(&message.Request{Method: method, Target: requestTarget, Authority: authority})
		if err != nil {
			return
		}
		twice, err := parseTarget(&message.Request{Method: method, Target: once.request(once.path, requestTarget), Authority: once.authority})
		if err != nil || twice != once {
			t.Errorf("forwarded as %+v, which is read as %+v, %v", once, twice, err)
		}
	})
}

// values makes header rules of lines.
func values(lines ...string) []HeaderValue {
	var out []HeaderValue
	for _, line := range lines {
		name, text, _ := strings.Cut(line, ": ")
		value, err := ParseValue(text, true)
		if err != nil {
			panic(err)
		}
		out = append(out, HeaderValue{name, value})
	}
	return out
}

// fields makes fields of lines.
func fields(lines ...string) message.Fields {
	var f message.Fields
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		f.Add(name, value)
	}
	return f
}

func TestCleanRequest(t *testing.T) {
	for _, c := range []struct {
		name     string
		minor    int // of HTTP/1; -1: HTTP/2
		in, want message.Fields
		upgrade  string
		trailers bool
	}{
		{"hop by hop", 1, fields("Connection: close, X-Mine", "X-Mine: 1", "Keep-Alive: 1", "Proxy-Connection: x", "Proxy-Authorization: x",
			"TE: gzip", "Trailer: X", "Transfer-Encoding: chunked", "Upgrade: x", "Http2-Settings: x", "Proxy: x", "Host: x", "Expect: 100-continue", "A: 1"), fields("Trailer: X", "A: 1"), "", false},
		{"named in several lists, and a list itself", 1, fields("A: 1", "Connection: B, connection", "B: 1", "connection: c ,,b", "C: 1", "Connection: D", "D: 1", "E: 1"), fields("A: 1", "E: 1"), "", false},
		{"te", 1, fields("Te: gzip, Trailers;q=0.5", "Connection: te"), nil, "", true},
		{"websocket", 1, fields("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-Websocket-Key: x"), fields("Sec-Websocket-Key: x"), "websocket", false},
		{"other", 1, fields("Connection: upgrade", "Upgrade: TLS/1.0"), nil, "TLS/1.0", false},
		{"h2c", 1, fields("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "Http2-Settings: x"), nil, "", false},
		{"hidden h2c", 1, fields("Connection: Upgrade", "Upgrade: websocket, H2C"), nil, "", false},
		{"h2", 1, fields("Connection: Upgrade", "Upgrade: h2"), nil, "", false},
		{"two", 1, fields("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"), nil, "", false},
		{"not asked for", 1, fields("Upgrade: websocket"), nil, "", false},
		{"HTTP/1.0", 0, fields("Connection: Upgrade", "Upgrade: websocket"), nil, "", false},
		{"HTTP/2", -1, fields("connection: upgrade", "upgrade: websocket"), nil, "", false},
	} {
		r := message.Request{Major: 1, Minor: c.minor, Fields: c.in}
		if c.minor < 0 {
			r.Major, r.Minor = 2, 0
		}
		cleanRequest(&r)
		if !slices.Equal(r.Fields, c.want) || r.Upgrade != c.upgrade || r.Trailers != c.trailers {
			t.Errorf("%s: %v, upgrade %q, trailers %v; want %v", c.name, r.Fields, r.Upgrade, r.Trailers, c.want)
		}
	}
}

func TestCheckField(t *testing.T) {
	for name, ok := range map[string]bool{"X-A": true, "x_a": true, "": false, "a b": false, "a:": false, "é": false, "host": false, "Content-Length": false, "connection": false, "te": false, "Expect": false} {
		if err := CheckFieldName(name); (err == nil) != ok {
			t.Errorf("name %q: %v", name, err)
		}
	}
	for value, ok := range map[string]bool{"": true, "a b\tc": true, "é": true, "a\r\nb": false, "a\x00": false, " a": false, "a\t": false} {
		if err := CheckFieldValue(value); (err == nil) != ok {
			t.Errorf("value %q: %v", value, err)
		}
	}
	if err := CheckFieldValue("secret\n"); strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

func TestAnswersForGRPC(t *testing.T) {
	for content, want := range map[string]bool{"application/grpc": true, "application/grpc+proto": true, "Application/GRPC; x=y": true, "application/grpc-web": false, "text/plain": false} {
		if isGRPC(fields("content-type: "+content)) != want {
			t.Errorf("%s", content)
		}
	}
	var r message.Response
	if body := gatewayTimeout.write(&r, true); r.Status != 200 || body != "" || !slices.Equal(r.Fields, fields("Content-Type: application/grpc", "Grpc-Status: 4", "Grpc-Message: gateway timeout")) {
		t.Errorf("%q %+v", body, r)
	}
}

func TestWarningsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l failureLog
		check := func(up string, r certs.Reason, wantSuppressed uint64, want bool) {
			t.Helper()
			if n, log := l.due(up, r, time.Now()); n != wantSuppressed || log != want {
				t.Errorf("%s %s: %d, %v; want %d, %v", up, r, n, log, wantSuppressed, want)
			}
		}
		check("a", certs.ReasonExpired, 0, true)
		check("a", certs.ReasonExpired, 0, false)
		check("a", certs.ReasonOther, 0, true)
		check("b", certs.ReasonExpired, 0, true)
		time.Sleep(9 * time.Second)
		check("a", certs.ReasonExpired, 0, false)
		time.Sleep(time.Second)
		check("a", certs.ReasonExpired, 2, true)
		check("a", certs.ReasonExpired, 0, false)
	})
}

func TestLogTextIsBoundedAndPrintable(t *testing.T) {
	got := bounded("a\n\x1b[31m" + strings.Repeat("x", 1000))
	if strings.ContainsAny(got, "\n\x1b") || len(got) > maxText+20 || !strings.HasSuffix(got, "…") {
		t.Errorf("%q", got)
	}
}
