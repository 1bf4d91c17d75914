package certs

import (
	"container/list"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// maxSessions bounds the TLS 1.3 tickets kept for one name. In a burst, each
	// connection takes one ticket and delivers one or two new ones. A check of the
	// idle connections of a pool reads a ticket from each.
	maxSessions = 64
	// maxSessionBytes bounds the total size of these tickets.
	maxSessionBytes = 256 << 10
	// maxHosts bounds the names under which one Client keeps sessions. There is
	// more than one only with ClientOptions.FromHost, where requests choose the
	// names.
	maxHosts = 256
	// maxTicket bounds the size of a ticket, which may be 64 KiB. Tickets that
	// contain a client's whole chain take several KiB.
	maxTicket = 16 << 10
	// offerLifetime is how long a server's choice among all groups is assumed to stay
	// the same.
	offerLifetime = 5 * time.Minute
)

// A session is a resumable session and what it reveals about the server.
type session struct {
	state   *tls.ClientSessionState
	version uint16
	// group is the key-exchange group of the connection that delivered it.
	group tls.CurveID
	// chosenAt is when the server last chose from all groups: on that connection, or
	// on an earlier one if only resumptions lie between. Zero means that all groups
	// must be offered again.
	chosenAt time.Time
	// size is the size of the ticket, set by put.
	size int
}

// knows reports whether the server's choice of a group is known at now.
func (s *session) knows(now time.Time) bool {
	return !s.chosenAt.IsZero() && !now.Before(s.chosenAt) && now.Sub(s.chosenAt) < offerLifetime
}

// sessions holds the sessions of one Client under one name. It is never shared,
// so every session in it was made with the Client's identity, trust and names.
// The cache of crypto/tls is unsuitable: it keeps one ticket for a name and
// uses it for every connection.
type sessions struct {
	mu sync.Mutex
	// tickets are TLS 1.3 tickets, newest last. Each is used once, so that it
	// cannot link connections (RFC 8446 appendix C.4) and because servers such as
	// OpenSSL accept each only once.
	tickets []*session
	// held is the total size of tickets.
	held int
	// last is the newest TLS 1.2 session, which may be reused (RFC 5077).
	last *session
	// noSession is the reason why the store is empty.
	noSession FullReason
	// flushes counts calls of flush. A ticket is dropped if it arrives after a
	// flush on a connection made before it.
	flushes uint64
}

// take returns a session to offer, or nil and the reason. put uses the
// generation to detect a flush since.
func (s *sessions) take() (taken *session, generation uint64, noSession FullReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.tickets); n > 0 {
		t := s.tickets[n-1]
		s.tickets[n-1] = nil
		s.tickets = s.tickets[:n-1]
		s.held -= t.size
		return t, s.flushes, ""
	}
	if s.last != nil {
		return s.last, s.flushes, ""
	}
	return nil, s.flushes, s.noSession
}

// put keeps a session unless its ticket is too long or flush ran since the
// connection began. When full, it drops the oldest tickets.
func (s *sessions) put(fresh *session, generation uint64) {
	ticket, _, err := fresh.state.ResumptionState()
	if err != nil || len(ticket) > maxTicket {
		return
	}
	fresh.size = len(ticket)
	s.mu.Lock()
	defer s.mu.Unlock()
	if generation != s.flushes {
		return
	}
	s.noSession = FullUsedUp
	if fresh.version < tls.VersionTLS13 {
		s.last = fresh
		return
	}
	s.held += fresh.size
	s.tickets = append(s.tickets, fresh)
	s.trim()
}

// trim drops the oldest tickets above the bounds. s.mu is held.
func (s *sessions) trim() {
	for len(s.tickets) > maxSessions || s.held > maxSessionBytes {
		s.held -= s.tickets[0].size
		s.tickets = slices.Delete(s.tickets, 0, 1)
	}
}

// drop forgets every session and records the reason.
func (s *sessions) drop(reason FullReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear(reason)
}

// flush drops every session, and those that open connections receive later. It
// returns how many it dropped.
func (s *sessions) flush() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushes++
	return s.clear(FullFlushed)
}

// count returns how many sessions there are.
func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.countLocked()
}

func (s *sessions) countLocked() int {
	n := len(s.tickets)
	if s.last != nil {
		n++
	}
	return n
}

// clear drops every session, with mu held. A store that never had a session
// keeps its reason.
func (s *sessions) clear(reason FullReason) int {
	n := s.countLocked()
	clear(s.tickets)
	s.tickets, s.held, s.last = s.tickets[:0], 0, nil
	if s.noSession != FullNoTicket && s.noSession != FullCredentialsChanged {
		s.noSession = reason
	}
	return n
}

// forgetOld forgets the TLS 1.2 session, so that it is not offered again. It is
// called when crypto/tls finds that it, or the ticket just taken, is too old.
func (s *sessions) forgetOld() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = nil
	if len(s.tickets) == 0 {
		s.noSession = FullExpired
	}
}

// hadSession reports whether this store, or the store of the replaced Client, ever
// had a session.
func (s *sessions) hadSession() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noSession != FullNoTicket
}

// hosts holds the sessions of one Client by name: a session made under one
// name is never offered under another (RFC 8446, section 4.6.1). The least
// recently used names are evicted.
type hosts struct {
	// changed are the names for which the replaced Client had sessions.
	changed map[string]bool

	mu     sync.Mutex
	byName map[string]*list.Element // elements hold a *host
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
		if old.hadSession() {
			h.changed[old.name] = true
		}
	}
	for name := range before.hosts.changed { // names that the new Client has not used
		if !asked[name] && len(h.changed) < maxHosts {
			h.changed[name] = true
		}
	}
	return h
}

// of returns the sessions for a name.
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
	fresh.noSession = FullNoTicket
	if h.changed[name] {
		fresh.noSession = FullCredentialsChanged
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

// A SessionState holds sessions of a Client, for the same Client of another process. It
// is a secret: with it, recorded sessions of TLS 1.2 can be decrypted.
type SessionState struct {
	// Identity identifies the settings that the sessions were made with.
	Identity string            `json:"identity"`
	Sessions []portableSession `json:"sessions,omitempty"`
}

// A portableSession is a session in a form that another process can read.
type portableSession struct {
	Host     string      `json:"host,omitempty"` // see hosts
	Ticket   []byte      `json:"ticket"`
	State    []byte      `json:"state"` // encoded by crypto/tls
	Version  uint16      `json:"version"`
	Group    tls.CurveID `json:"group,omitempty"`
	ChosenAt time.Time   `json:"chosen_at,omitzero"`
}

// Size returns the approximate size of the encoded state, in bytes.
func (s *SessionState) Size() (n int) {
	for i := range s.Sessions {
		n += len(s.Sessions[i].Ticket) + len(s.Sessions[i].State)
	}
	return n * 4 / 3
}

// TakeSessions returns the newest sessions of each name, at most perName of them. TLS 1.3
// tickets among them are removed from c, because each may be used only once.
func (c *Client) TakeSessions(perName int) SessionState {
	s := SessionState{Identity: c.sessionIdentity()}
	if c.o.NoSessionReuse {
		return s
	}
	for _, h := range c.hosts.all() {
		for _, one := range h.takeNewest(perName) {
			ticket, state, err := one.state.ResumptionState()
			if err != nil || state == nil {
				continue
			}
			encoded, err := state.Bytes()
			if err != nil {
				continue
			}
			s.Sessions = append(s.Sessions, portableSession{h.name, ticket, encoded, one.version, one.group, one.chosenAt})
		}
	}
	return s
}

// AdoptSessions adds the sessions that TakeSessions returned in another process. It
// ignores them if they were made with other settings. As always, a resumed session must
// pass the current Requirements.
func (c *Client) AdoptSessions(s SessionState) {
	if c.o.NoSessionReuse || s.Identity != c.sessionIdentity() {
		return
	}
	byHost := make(map[string][]*session)
	for _, p := range s.Sessions {
		state, err := tls.ParseSessionState(p.State)
		if err != nil || len(p.Ticket) > maxTicket {
			continue
		}
		resumable, err := tls.NewResumptionState(p.Ticket, state)
		if err != nil {
			continue
		}
		byHost[p.Host] = append(byHost[p.Host], &session{state: resumable, version: p.Version, group: p.Group, chosenAt: p.ChosenAt, size: len(p.Ticket)})
	}
	for host, all := range byHost {
		c.hosts.of(host).adopt(all)
	}
}

// sessionIdentity returns the settings that a session must not outlive, in a form that
// another process can compare.
func (c *Client) sessionIdentity() string {
	o := &c.o
	own := ""
	if o.Certificate != nil {
		own = o.Certificate.Fingerprint()
	}
	text := fmt.Sprintf("%s %q %t %t %d %d %v %v %q %t %t", own, o.ServerName, o.NoServerName, o.FromHost,
		o.MinVersion, o.MaxVersion, o.CipherSuites, o.Groups, o.NextProtos, o.RenegotiateOnce, o.RequireALPN)
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// takeNewest returns at most n tickets, which it removes, and the TLS 1.2 session.
func (s *sessions) takeNewest(n int) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := max(len(s.tickets)-n, 0)
	taken := slices.Clone(s.tickets[from:])
	clear(s.tickets[from:])
	s.tickets = s.tickets[:from]
	for _, t := range taken {
		s.held -= t.size
	}
	if s.last != nil {
		taken = append(taken, s.last)
	}
	return taken
}

// adopt adds sessions that are older than those of this process.
func (s *sessions) adopt(older []*session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noSession = FullUsedUp
	var tickets []*session
	for _, o := range older {
		switch {
		case o.version >= tls.VersionTLS13:
			tickets = append(tickets, o)
			s.held += o.size
		case s.last == nil:
			s.last = o
		}
	}
	s.tickets = append(tickets, s.tickets...)
	s.trim()
}
