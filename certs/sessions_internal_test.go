package certs

import (
	"crypto/tls"
	"testing"
)

func TestSessions(t *testing.T) {
	var s sessions
	if s.take() != nil {
		t.Fatal("something in an empty store")
	}
	old := new(tls.ClientSessionState)
	s.put(old, tls.VersionTLS12)
	for range 2 {
		if s.take() != old {
			t.Error("a session of TLS 1.2 is not kept")
		}
	}
	var tickets []*tls.ClientSessionState
	for range maxSessions + 2 {
		tickets = append(tickets, new(tls.ClientSessionState))
		s.put(tickets[len(tickets)-1], tls.VersionTLS13)
	}
	for i := len(tickets) - 1; i >= 2; i-- {
		if s.take() != tickets[i] {
			t.Fatalf("ticket %d was not the next", i)
		}
	}
	if s.take() != old {
		t.Error("a ticket was left, or the session of TLS 1.2 is gone")
	}
	s.forget()
	if s.take() != nil {
		t.Error("the session was not forgotten")
	}
	s.put(old, tls.VersionTLS12)
	s.put(old, tls.VersionTLS13)
	s.drop()
	if s.take() != nil {
		t.Error("the sessions were not dropped")
	}
}

// A session that crypto/tls found unusable is not offered again, and the
// tickets beside it are not lost.
func TestUnusableSessionsAreForgotten(t *testing.T) {
	h := &handshake{client: new(Client), version: tls.VersionTLS12}
	h.Put("", new(tls.ClientSessionState))
	ticket := new(tls.ClientSessionState)
	h.version = tls.VersionTLS13
	h.Put("", ticket)
	h.Put("", nil)
	if got, ok := h.Get("any"); !ok || got != ticket {
		t.Error("the ticket is gone")
	}
	if got, ok := h.Get("any"); ok || got != nil {
		t.Error("the session is still there")
	}
}

func BenchmarkSessions(b *testing.B) {
	var s sessions
	cs := new(tls.ClientSessionState)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.put(cs, tls.VersionTLS13)
			s.take()
		}
	})
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":             "",
		"plain":        "plain",
		"a\nb\x1b[0m":  `a\nb\x1b[0m`,
		"bad \xff":     `bad \xff`,
		`back\slash`:   `back\\slash`,
		"Zürich 東京":    "Zürich 東京",
		"\u202eevil":   `\u202eevil`,
		"123456789012": "1234567890… (2 more bytes)",
		"12345678東京":   "12345678… (6 more bytes)",
	} {
		limit := 10
		if len(want) > 0 && in != "123456789012" && in != "12345678東京" {
			limit = 100
		}
		if got := printable(in, limit); got != want {
			t.Errorf("printable(%q) is %q, want %q", in, got, want)
		}
	}
}
