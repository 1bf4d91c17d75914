package l7

import (
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// Whatever an upstream is called, its name makes a valid Host and :authority.
func TestTheUpstreamsNameIsAValidHost(t *testing.T) {
	w := newWorld(t)
	server := w.server(echo, "h2", "http/1.1")
	for _, c := range []struct{ name, authority, want string }{
		{"inner.example", "", "inner.example"},
		{"inner.example:8443", "", "inner.example:8443"},
		{"192.0.2.1", "", "192.0.2.1"},
		{"::1", "", "[::1]"},
		{"2001:DB8:0::1", "", "[2001:db8::1]"},
		{"fe80::1%eth0", "", "[fe80::1]"},
		{"[::1]", "", "[::1]"},
		{"[::1]:8443", "", "[::1]:8443"},
		{"", "[::1]:8443", "[::1]:8443"},
		{"", "[fe80::1%eth0]:8443", "[fe80::1]:8443"},
		{"", "inner.example:8443", "inner.example:8443"},
	} {
		for _, p := range []Protocol{HTTP1, HTTP2} {
			up := upstream.New(upstream.Options{Name: "up", Endpoints: []upstream.EndpointOptions{{
				Network: "tcp", Address: server, Authority: c.authority,
				Stream: w.client(), HTTP: w.client(map[Protocol]string{HTTP1: "http/1.1", HTTP2: "h2"}[p]),
			}}})
			_, address := w.plain(w.newBack(BackOptions{Upstream: up, Protocol: p, TLS: true, SendUpstreamHost: true, Host: c.name}))
			want := map[Protocol]string{HTTP1: "HTTP/1.1", HTTP2: "HTTP/2.0"}[p] + " GET " + c.want + " / by gateway: "
			if code, body := w.get(w.browser(), "http://"+address+"/"); code != 200 || body != want {
				t.Errorf("name %q, authority %q: %d %q, want %q", c.name, c.authority, code, body, want)
			}
		}
	}
}
