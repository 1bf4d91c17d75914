package l7

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

func TestParseTarget(t *testing.T) {
	for _, c := range []struct {
		h    head
		want target
	}{
		{head{method: "GET", target: "/", authority: "a"}, target{"a", "a", "/", ""}},
		{head{method: "GET", target: "/a//b/%2e%2e/c?x=%2e%2e", authority: "A.Example.:8443"}, target{"a.example", "a.example:8443", "/a/c", "?x=%2e%2e"}},
		{head{method: "GET", target: "/?", authority: "a:"}, target{"a", "a", "/", "?"}},
		{head{method: "GET", target: "/?a?b", authority: "[::0:1]:80"}, target{"[::1]", "[::1]:80", "/", "?a?b"}},
		{head{method: "GET", target: "/", authority: "[::1]"}, target{"[::1]", "[::1]", "/", ""}},
		{head{method: "OPTIONS", target: "*", authority: "a"}, target{"a", "a", "*", ""}},
		{head{method: "GET", target: "http://a.example/x?y", authority: "A.example"}, target{"a.example", "a.example", "/x", "?y"}},
		{head{method: "GET", target: "HTTPS://a", authority: "a"}, target{"a", "a", "/", ""}},
		{head{method: "GET", target: "http://a?y", authority: "a"}, target{"a", "a", "/", "?y"}},
		{head{method: "GET", target: "/", authority: "a", header: fields{"Host": {"A."}}}, target{"a", "a", "/", ""}},
		{head{method: "POST", target: "/", authority: "a", header: fields{"Content-Length": {"1"}}, length: 1}, target{"a", "a", "/", ""}},
	} {
		if got, err := parseTarget(c.h); err != nil || got != c.want {
			t.Errorf("%+v: %+v, %v; want %+v", c.h, got, err, c.want)
		}
	}
	for _, h := range []head{
		{method: "CONNECT", target: "a:443", authority: "a:443"},
		{method: "GET", target: "/"},
		{method: "GET", target: "/", authority: "a b"},
		{method: "GET", target: "/", authority: "a,b"},
		{method: "GET", target: "/", authority: "user@a"},
		{method: "GET", target: "/", authority: "a:x"},
		{method: "GET", target: "", authority: "a"},
		{method: "GET", target: "a", authority: "a"},
		{method: "GET", target: "*", authority: "a"},
		{method: "OPTIONS", target: "*?x", authority: "a"},
		{method: "PRI", target: "*", authority: "a"},
		{method: "GET", target: "ftp://a/", authority: "a"},
		{method: "GET", target: "http://b/", authority: "a"},
		{method: "GET", target: "http://a:81/", authority: "a"},
		{method: "GET", target: "http://user@a/", authority: "a"},
		{method: "GET", target: "http://a#x", authority: "a"},
		{method: "GET", target: "/..", authority: "a"},
		{method: "GET", target: "/a/..%2fb", authority: "a"},
		{method: "GET", target: "/a\\b", authority: "a"},
		{method: "GET", target: "/%00", authority: "a"},
		{method: "GET", target: "/a#b", authority: "a"},
		{method: "GET", target: "/a?b#c", authority: "a"},
		{method: "GET", target: "/a?b c", authority: "a"},
		{method: "GET", target: "/", authority: "a", header: fields{"Host": {"b"}}},
		{method: "GET", target: "/", authority: "a", header: fields{"Host": {"a", "b"}}},
		{method: "POST", target: "/", authority: "a", header: fields{"Content-Length": {"1"}}, length: 1, encoded: true},
		{method: "POST", target: "/", authority: "a", header: fields{"Content-Length": {"1"}}},
		{method: "POST", target: "/", authority: "a", header: fields{"Content-Length": {"1", "1"}}, length: 1},
		{method: "POST", target: "/", authority: "a", header: fields{"Content-Length": {"+1"}}, length: 1},
		{method: "GET / HTTP/1.1", target: "/", authority: "a"},
		{method: "", target: "/", authority: "a"},
	} {
		if got, err := parseTarget(h); err == nil {
			t.Errorf("%+v is taken for %+v", h, got)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	f.Add("GET", "/a/../b?c", "A.example:80")
	f.Add("GET", "http://a/", "a")
	f.Fuzz(func(t *testing.T, method, requestTarget, authority string) {
		once, err := parseTarget(head{method: method, target: requestTarget, authority: authority})
		if err != nil {
			return
		}
		twice, err := parseTarget(head{method: method, target: once.path + once.query, authority: once.authority})
		if err != nil || twice != once {
			t.Errorf("forwarded as %+v, which is read as %+v, %v", once, twice, err)
		}
	})
}

// Whatever a client says about where its request came from, and however it
// spells it, an upstream sees the gateway's word alone.
func TestForwardingFieldsCannotBeForged(t *testing.T) {
	for _, name := range []string{
		"X-Forwarded-For", "X_forwarded_for", "X-Forwarded_for", "x-forwarded-for", "X-FORWARDED-FOR", "X-Forwarded-Host", "X_Forwarded_Host",
		"X-Forwarded-Proto", "X_Forwarded_Proto", "X-Forwarded-Port", "X-Forwarded-Client-Cert", "X-Forwarded", "Forwarded", "forwarded", "X-Real-Ip", "X_Real_IP",
	} {
		h := fields{name: {"forged", "forged"}, "X-Other": {"kept"}, "Connection": {"X-Forwarded-For, x-forwarded-host", "X-FORWARDED-PROTO"}}
		h.cleanRequest(true)
		h.setForwarding("10.1.2.3", "a.example:80", true)
		want := fields{"X-Other": {"kept"}, "X-Forwarded-For": {"10.1.2.3"}, "X-Forwarded-Host": {"a.example:80"}, "X-Forwarded-Proto": {"https"}}
		if !equal(h, want) {
			t.Errorf("%s: %v", name, h)
		}
	}
	h := fields{"X-Forwarded-For": {"forged"}}
	h.cleanRequest(true)
	h.setForwarding("", "a", false)
	if !equal(h, fields{"X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}}) {
		t.Errorf("without a client address: %v", h)
	}
}

func equal(a, b fields) bool { return maps.EqualFunc(a, b, slices.Equal) }

func TestCleanRequest(t *testing.T) {
	for _, c := range []struct {
		name     string
		upgrades bool
		in, want fields
	}{
		{"hop by hop", true, fields{"Connection": {"close, X-Mine"}, "X-Mine": {"1"}, "Keep-Alive": {"1"}, "Proxy-Connection": {"x"}, "Proxy-Authorization": {"x"},
			"Te": {"gzip"}, "Trailer": {"X"}, "Transfer-Encoding": {"chunked"}, "Upgrade": {"x"}, "Http2-Settings": {"x"}, "Proxy": {"x"}, "Host": {"x"}, "A": {"1"}}, fields{"A": {"1"}}},
		{"te", true, fields{"Te": {"gzip, Trailers;q=0.5"}, "Connection": {"te"}}, fields{"Te": {"trailers"}}},
		{"websocket", true, fields{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Key": {"x"}},
			fields{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Key": {"x"}}},
		{"other", true, fields{"Connection": {"upgrade"}, "Upgrade": {"TLS/1.0"}}, fields{"Connection": {"Upgrade"}, "Upgrade": {"TLS/1.0"}}},
		{"h2c", true, fields{"Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {"h2c"}, "Http2-Settings": {"x"}}, fields{}},
		{"hidden h2c", true, fields{"Connection": {"Upgrade"}, "Upgrade": {"websocket, H2C"}}, fields{}},
		{"h2", true, fields{"Connection": {"Upgrade"}, "Upgrade": {"h2"}}, fields{}},
		{"two", true, fields{"Connection": {"Upgrade"}, "Upgrade": {"websocket", "h2c"}}, fields{}},
		{"not asked for", true, fields{"Upgrade": {"websocket"}}, fields{}},
		{"HTTP/2", false, fields{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}, fields{}},
	} {
		c.in.cleanRequest(c.upgrades)
		if !equal(c.in, c.want) {
			t.Errorf("%s: %v, want %v", c.name, c.in, c.want)
		}
	}
}

func TestHeaderRules(t *testing.T) {
	h := fields{"A": {"1"}, "B": {"1"}, "C": {"1"}, "Host": {"h"}, "Content-Length": {"3"}}
	shared := h["C"]
	r := HeaderRules{
		Remove: []string{"a", "content-length"},
		Set:    []Field{{"b", "2"}, {"Host", "x"}, {"d", "4"}},
		Add:    []Field{{"c", "3"}, {"a", "5"}, {"Transfer-Encoding", "x"}, {"d", "5"}},
	}
	r.apply(h)
	if want := (fields{"A": {"5"}, "B": {"2"}, "C": {"1", "3"}, "D": {"4", "5"}, "Host": {"h"}, "Content-Length": {"3"}}); !equal(h, want) {
		t.Errorf("%v, want %v", h, want)
	}
	if len(shared) != 1 {
		t.Errorf("changed in place: %v", shared)
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
		if isGRPC(fields{"Content-Type": {content}}) != want {
			t.Errorf("%s", content)
		}
	}
	h := fields{}
	if code, body := gatewayTimeout.write(h, true); code != 200 || body != "" || h["Grpc-Status"][0] != "4" || h["Grpc-Message"][0] != "gateway timeout" {
		t.Errorf("%d %q %v", code, body, h)
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
