package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

func TestCleanRequest(t *testing.T) {
	for _, c := range []struct {
		name     string
		minor    int // the minor version of HTTP/1; -1: HTTP/2
		in, want message.Fields
		upgrade  string
		trailers bool
	}{
		{"hop by hop", 1, fields("Connection: close, X-Mine", "X-Mine: 1", "Keep-Alive: 1", "Proxy-Connection: x", "Proxy-Authorization: x",
			"TE: gzip", "Trailer: X", "Transfer-Encoding: chunked", "Upgrade: x", "Http2-Settings: x", "Proxy: x", "Host: x", "Expect: 100-continue", "A: 1"), fields("Trailer: X", "A: 1"), "", false},
		{"named in several lists, and a list itself", 1, fields("A: 1", "Connection: B, connection", "B: 1", "connection: c ,,b", "C: 1", "Connection: D", "D: 1", "E: 1"), fields("A: 1", "E: 1"), "", false},
		{"many named", 1, fields("Connection: B, c, D, e, F, g", "A: 1", "b: 1", "C: 1", "d: 1", "E: 1", "f: 1", "G: 1", "H: 1", "Keep-Alive: 1"), fields("A: 1", "H: 1"), "", false},
		{"te", 1, fields("Te: gzip, Trailers;q=0.5", "Connection: te"), nil, "", true},
		{"websocket", 1, fields("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-Websocket-Key: x"), fields("Sec-Websocket-Key: x"), "websocket", false},
		{"another protocol", 1, fields("Connection: upgrade", "Upgrade: TLS/1.0"), nil, "TLS/1.0", false},
		{"h2c", 1, fields("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "Http2-Settings: x"), nil, "", false},
		{"hidden h2c", 1, fields("Connection: Upgrade", "Upgrade: websocket, H2C"), nil, "", false},
		{"h2", 1, fields("Connection: Upgrade", "Upgrade: h2"), nil, "", false},
		{"two protocols", 1, fields("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"), nil, "", false},
		{"an upgrade without its connection option", 1, fields("Upgrade: websocket"), nil, "", false},
		{"HTTP/1.0", 0, fields("Connection: Upgrade", "Upgrade: websocket"), nil, "", false},
		{"HTTP/2", -1, fields("connection: upgrade", "upgrade: websocket"), nil, "", false},
	} {
		r := message.Request{Major: 1, Minor: c.minor, Fields: c.in}
		if c.minor < 0 {
			r.Major, r.Minor = 2, 0
		}
		CleanRequest(&r, &Spelling{})
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

// A client that announces thousands of trailer fields costs no more than one that
// announces a few.
func TestAnnouncedNamesAreBounded(t *testing.T) {
	r := &message.Request{Length: -1, Fields: message.Fields{
		{Name: "Trailer", Value: strings.Repeat("a,", maxAnnounced-1)}, {Name: "Trailer", Value: "b, c"}, {Name: "Trailer", Value: "d"},
	}}
	(&Protected{Rules: new(HeaderRules), Spelling: new(Spelling)}).CleanAnnouncement(r)
	if n := len(r.Fields); n != 2 || r.Fields[1].Value != "b" {
		t.Errorf("%d fields: %v", n, r.Fields)
	}
}
