package certs

import (
	"crypto/tls"
	"sync"
)

// maxSessions bounds how many TLS 1.3 tickets one Client keeps. A burst of
// connections takes one each, and each connection brings one or two back.
const maxSessions = 16

// sessions keeps what one Client may resume. It is never shared, so whatever
// the Client's identity, trust and names are, a session in it was made with
// them. The LRU of crypto/tls would not do: it keeps one ticket for a name, and
// hands the same one to every connection.
type sessions struct {
	mu sync.Mutex
	// tickets are of TLS 1.3, the newest last. Each is given out once: RFC
	// 8446 appendix C.4, so that connections cannot be linked by it, and
	// because servers such as OpenSSL's take each but once.
	tickets []*tls.ClientSessionState
	// last is the newest session of TLS 1.2, which may be used again and
	// again (RFC 5077).
	last *tls.ClientSessionState
}

// take returns a session to offer, or nil.
func (s *sessions) take() *tls.ClientSessionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.tickets); n > 0 {
		t := s.tickets[n-1]
		s.tickets[n-1] = nil
		s.tickets = s.tickets[:n-1]
		return t
	}
	return s.last
}

// put keeps a session that was made with the given version of TLS. The oldest
// ticket goes when there are too many.
func (s *sessions) put(cs *tls.ClientSessionState, version uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version < tls.VersionTLS13 {
		s.last = cs
		return
	}
	if len(s.tickets) == maxSessions {
		copy(s.tickets, s.tickets[1:])
		s.tickets = s.tickets[:maxSessions-1]
	}
	s.tickets = append(s.tickets, cs)
}

// drop forgets every session.
func (s *sessions) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tickets)
	s.tickets, s.last = s.tickets[:0], nil
}

// forget forgets the session of TLS 1.2, which would otherwise be offered
// again.
func (s *sessions) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = nil
}
