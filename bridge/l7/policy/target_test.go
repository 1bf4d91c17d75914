package policy

import (
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

func TestParseTarget(t *testing.T) {
	for _, c := range []struct {
		r    message.Request
		want Target
	}{
		{message.Request{Method: "GET", Target: "/", Authority: "a"}, Target{"a", "a", "/", ""}},
		{message.Request{Method: "GET", Target: "/a//b/%2e%2e/c?x=%2e%2e", Authority: "A.Example.:8443"}, Target{"a.example", "a.example:8443", "/a/c", "?x=%2e%2e"}},
		{message.Request{Method: "GET", Target: "/?", Authority: "a:"}, Target{"a", "a", "/", "?"}},
		{message.Request{Method: "GET", Target: "/?a?b", Authority: "[::0:1]:80"}, Target{"[::1]", "[::1]:80", "/", "?a?b"}},
		{message.Request{Method: "GET", Target: "/", Authority: "[::1]"}, Target{"[::1]", "[::1]", "/", ""}},
		{message.Request{Method: "OPTIONS", Target: "*", Authority: "a"}, Target{"a", "a", "*", ""}},
		{message.Request{Method: "GET", Target: "/", Authority: "a", Fields: fields("host: A.")}, Target{"a", "a", "/", ""}},
	} {
		if got, err := ParseTarget(&c.r); err != nil || got != c.want {
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
		if got, err := ParseTarget(&r); err == nil {
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
		authority, rest, err := SplitAbsolute(c.target, c.host)
		if authority != c.authority || rest != c.rest || (err == nil) != (c.rest != "") {
			t.Errorf("%s: %q %q, %v", c.target, authority, rest, err)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	f.Add("GET", "/a/../b?c", "A.example:80")
	f.Add("GET", "http://a/", "a")
	f.Fuzz(func(t *testing.T, method, requestTarget, authority string) {
		once, err := ParseTarget(&message.Request{Method: method, Target: requestTarget, Authority: authority})
		if err != nil {
			return
		}
		twice, err := ParseTarget(&message.Request{Method: method, Target: once.WithPath(once.Path, requestTarget), Authority: once.Authority})
		if err != nil || twice != once {
			t.Errorf("forwarded as %+v, which is read as %+v, %v", once, twice, err)
		}
	})
}
