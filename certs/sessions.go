package certs

import (
	"container/list"
	"crypto/tls"
	"sync"
	"time"
)

const (
	// maxSessions bounds how many TLS 1.3 tickets are kept for one name. A
	// burst of connections takes one each, and each connection brings one or
	// two back.
	maxSessions = 16
	// maxHosts bounds the names under which one Client keeps sessions. There
	// is more than one only with ClientOptions.FromHost, where the names are
	// whatever requests ask for.
	maxHosts = 256
	// maxTicket bounds a ticket, which may be 64 KiB long. Those that hold a
	// client's whole chain have a few.
	maxTicket = 16 << 10
	// askAgain is for how long what a server chose of all groups is taken to be
	// what it would choose again.
	askAgain = 5 * time.Minute
)

// A session is what a server gave to be resumed, and what is known of the server
// by it.
type session struct {
	state   *tls.ClientSessionState
	version uint16
	// group is the key-exchange group of the connection that brought it.
	group tls.CurveID
	// asked is when the server last had the choice of every group, on that
	// connection or on one that led to it by resumptions alone. Zero: it has to
	// be asked anew.
	asked time.Time
}

// knows reports whether at now the server's choice of a group is known.
func (s *session) knows(now time.Time) bool {
	return !s.asked.IsZero() && !now.Before(s.asked) && now.Sub(s.asked) < askAgain
}

// sessions keeps what one Client may resume under one name. It is never shared,
// so whatever the Client's identity, trust and names are, a session in it was
// made with them. The LRU of crypto/tls would not do: it keeps one ticket for a
// name, and hands the same one to every connection.
type sessions struct {
	mu sync.Mutex
	// tickets are of TLS 1.3, the newest last. Each is given out once: RFC
	// 8446 appendix C.4, so that connections cannot be linked by it, and
	// because servers such as OpenSSL's take each but once.
	tickets []*session
	// last is the newest session of TLS 1.2, which may be used again and
	// again (RFC 5077).
	last *session
	// none is why there is no session, when there is none.
	none FullReason
	// flushes counts calls of flush, so that a ticket is not kept that
	// arrives after one on a connection made before it.
	flushes uint64
}

// take returns a session to offer, or nil and why there is none, and what put
// wants to know of when a connection began.
func (s *sessions) take() (taken *session, generation uint64, none FullReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.tickets); n > 0 {
		t := s.tickets[n-1]
		s.tickets[n-1] = nil
		s.tickets = s.tickets[:n-1]
		return t, s.flushes, ""
	}
	if s.last != nil {
		return s.last, s.flushes, ""
	}
	return nil, s.flushes, s.none
}

// put keeps a session unless its ticket is too long or there was a flush since
// the connection began. The oldest ticket goes when there are too many.
func (s *sessions) put(fresh *session, generation uint64) {
	if ticket, _, err := fresh.state.ResumptionState(); err != nil || len(ticket) > maxTicket {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if generation != s.flushes {
		return
	}
	s.none = FullUsedUp
	if fresh.version < tls.VersionTLS13 {
		s.last = fresh
		return
	}
	if len(s.tickets) == maxSessions {
		copy(s.tickets, s.tickets[1:])
		s.tickets = s.tickets[:maxSessions-1]
	}
	s.tickets = append(s.tickets, fresh)
}

// drop forgets every session, and why.
func (s *sessions) drop(why FullReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.empty(why)
}

// flush forgets every session, those too that connections made so far have yet
// to bring, and returns how many there were.
func (s *sessions) flush() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushes++
	return s.empty(FullFlushed)
}

// empty is called with mu held. A store that never had a session stays one.
func (s *sessions) empty(why FullReason) int {
	n := len(s.tickets)
	if s.last != nil {
		n++
	}
	clear(s.tickets)
	s.tickets, s.last = s.tickets[:0], nil
	if s.none != FullNoTicket && s.none != FullCredentialsChanged {
		s.none = why
	}
	return n
}

// forget forgets the session of TLS 1.2, which would otherwise be offered
// again: crypto/tls has found that it, or the ticket just taken, is too old.
func (s *sessions) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = nil
	if len(s.tickets) == 0 {
		s.none = FullExpired
	}
}

// had reports whether a session has been kept, or one of the Client before.
func (s *sessions) had() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.none != FullNoTicket
}

// hosts is the sessions of one Client by name: a session made under one name is
// never offered under another (RFC 8446, section 4.6.1). The names longest
// unused are forgotten.
type hosts struct {
	// changed are the names of which the Client before this one had sessions.
	changed map[string]bool

	mu     sync.Mutex
	byName map[string]*list.Element // of *host
	recent *list.List               // the most recently used first
}

type host struct {
	name string
	sessions
}

func newHosts(before *Client) *hosts {
	h := &hosts{byName: make(map[string]*list.Element), recent: list.New(), changed: make(map[string]bool)}
	if before == nil {
		return h
	}
	asked := make(map[string]bool)
	for _, old := range before.hosts.all() {
		asked[old.name] = true
		if old.had() {
			h.changed[old.name] = true
		}
	}
	for name := range before.hosts.changed { // and nobody has asked for it since
		if !asked[name] && len(h.changed) < maxHosts {
			h.changed[name] = true
		}
	}
	return h
}

// of returns the sessions of a name.
func (h *hosts) of(name string) *sessions {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.byName[name]; e != nil {
		h.recent.MoveToFront(e)
		return &e.Value.(*host).sessions
	}
	if h.recent.Len() == maxHosts {
		oldest := h.recent.Back()
		delete(h.byName, oldest.Value.(*host).name)
		h.recent.Remove(oldest)
	}
	fresh := &host{name: name}
	fresh.none = FullNoTicket
	if h.changed[name] {
		fresh.none = FullCredentialsChanged
	}
	h.byName[name] = h.recent.PushFront(fresh)
	return &fresh.sessions
}

func (h *hosts) all() []*host {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*host, 0, h.recent.Len())
	for e := h.recent.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.(*host))
	}
	return all
}
