package validity

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Tally counts connections that a change ends. A connection is closed at once if it
// has no work in progress, or no grace period. Otherwise it is drained: it takes no
// further work, and ends after its current work.
type Tally struct {
	Closed, Drained int
	Requests        int // in progress on these connections
}

// Add counts a connection.
func (t *Tally) Add(atOnce bool, requests int) {
	if atOnce {
		t.Closed++
	} else {
		t.Drained++
	}
	t.Requests += requests
}

// Forecast calls yield for each connection that would end if p were in force, with its
// owner and its grace period. It changes nothing, and omits connections that are
// already ending. Like Require, it verifies equal peers once.
func (s *Set) Forecast(p *Policy, yield func(owner Owner, grace time.Duration)) {
	if p == nil || p.Verifier == nil || p == s.policy.Load() {
		return
	}
	failures := make(map[certs.PeerKey]*certs.VerifyError)
	for _, m := range s.open() {
		key := m.peer.Key()
		failure, verified := failures[key]
		if !verified {
			_, failure = p.Verifier.Reverify(m.peer)
			failures[key] = failure
		}
		if failure != nil && p.ends(failure) {
			yield(m.owner, p.grace())
		}
	}
}

// open returns the members that are not ending.
func (s *Set) open() []*Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*Member
	for m := range s.members {
		if !m.Ending() {
			out = append(out, m)
		}
	}
	return out
}

// Ending reports whether the Set has ended the connection, or is about to.
func (m *Member) Ending() bool { return m.ended.Load() != nil }
