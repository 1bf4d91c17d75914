package certs

import (
	"crypto/tls"
	"fmt"
	"testing"
)

func TestSessions(t *testing.T) {
	s := sessions{noSession: FullNoTicket}
	check := func(want *tls.ClientSessionState, reason FullReason) {
		t.Helper()
		var got *tls.ClientSessionState
		taken, _, noSession := s.take()
		if taken != nil {
			got = taken.state
		}
		if got != want || noSession != reason {
			t.Errorf("got %p and %q, want %p and %q", got, noSession, want, reason)
		}
	}
	check(nil, FullNoTicket)
	s.drop(FullRefused)
	check(nil, FullNoTicket) // there was no session to refuse
	old := new(tls.ClientSessionState)
	s.put(&session{state: old, version: tls.VersionTLS12}, 0)
	for range 2 {
		check(old, "")
	}
	var tickets []*tls.ClientSessionState
	for range maxSessions + 2 {
		tickets = append(tickets, new(tls.ClientSessionState))
		s.put(&session{state: tickets[len(tickets)-1], version: tls.VersionTLS13}, 0)
	}
	for i := len(tickets) - 1; i >= 2; i-- {
		check(tickets[i], "")
	}
	check(old, "")
	s.forgetOld()
	check(nil, FullExpired)
	s.put(&session{state: old, version: tls.VersionTLS13}, 0)
	check(old, "")
	check(nil, FullUsedUp)
	s.put(&session{state: old, version: tls.VersionTLS12}, 0)
	s.put(&session{state: old, version: tls.VersionTLS13}, 0)
	s.drop(FullRefused)
	check(nil, FullRefused)
	s.put(&session{state: old, version: tls.VersionTLS12}, 0)
	s.put(&session{state: old, version: tls.VersionTLS13}, 0)
	if n := s.flush(); n != 2 {
		t.Errorf("%d sessions were flushed", n)
	}
	check(nil, FullFlushed)
	s.put(&session{state: old, version: tls.VersionTLS13}, 0) // a session of a connection made before the flush
	check(nil, FullFlushed)
	s.put(&session{state: old, version: tls.VersionTLS13}, s.flushes)
	check(old, "")
}

// Large tickets displace older ones before their number reaches the limit.
func TestTicketsAreBoundedInSize(t *testing.T) {
	var s sessions
	const fit = maxSessionBytes / maxTicket
	for i := range 3 * fit {
		size := maxTicket + i%2 // every second ticket is too large to be kept
		state, err := tls.NewResumptionState(make([]byte, size), new(tls.SessionState))
		if err != nil {
			t.Fatal(err)
		}
		s.put(&session{state: state, version: tls.VersionTLS13}, 0)
	}
	if n := len(s.tickets); n != fit || s.held != maxSessionBytes {
		t.Errorf("%d tickets of %d bytes are kept", n, s.held)
	}
	for s.held > 0 {
		if taken, _, _ := s.take(); taken == nil {
			t.Fatalf("%d bytes are held by no ticket", s.held)
		}
	}
	if len(s.tickets) != 0 {
		t.Errorf("%d tickets hold no bytes", len(s.tickets))
	}
}

// A session that crypto/tls rejects is not offered again, and other tickets
// are kept.
func TestUnusableSessionsAreDropped(t *testing.T) {
	h := &handshake{version: tls.VersionTLS12, sessions: new(sessions)}
	h.Put("", new(tls.ClientSessionState))
	ticket := new(tls.ClientSessionState)
	h.version = tls.VersionTLS13
	h.Put("", ticket)
	h.Put("", nil)
	if got, _, _ := h.sessions.take(); got == nil || got.state != ticket {
		t.Error("the ticket is gone")
	}
	if got, _, _ := h.sessions.take(); got != nil {
		t.Error("the session is still there")
	}
}

// Requests choose the names, so a Client keeps only the most recently used
// ones, and remembers those of the replaced Client.
func TestHostsAreBounded(t *testing.T) {
	first := &Client{hosts: newHosts(nil)}
	for i := range 2 * maxHosts {
		s := first.hosts.of(fmt.Sprint(i))
		if i%2 == 0 {
			s.put(&session{state: new(tls.ClientSessionState), version: tls.VersionTLS13}, 0)
		}
		first.hosts.of("0") // this name is always in use
	}
	if n := len(first.hosts.all()); n != maxHosts || len(first.hosts.byName) != maxHosts {
		t.Errorf("%d names are kept, %d are known", n, len(first.hosts.byName))
	}
	next := newHosts(first)
	for name, want := range map[string]FullReason{
		"0":                        FullCredentialsChanged,
		fmt.Sprint(2*maxHosts - 2): FullCredentialsChanged,
		fmt.Sprint(2*maxHosts - 1): FullNoTicket,
		"2":                        FullNoTicket, // evicted
		"a new name":               FullNoTicket,
	} {
		if _, _, got := next.of(name).take(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func BenchmarkSessions(b *testing.B) {
	var s sessions
	cs := new(tls.ClientSessionState)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.put(&session{state: cs, version: tls.VersionTLS13}, 0)
			s.take()
		}
	})
}
