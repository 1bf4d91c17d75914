package limit

import (
	"net/netip"
	"time"
)

// A State holds what has been spent of a Limiter's rates, for the Limiter of another
// process. Buckets that are full are left out.
type State struct {
	Shared  time.Duration `json:"shared,omitempty"`  // time until the shared bucket is full
	Clients []ClientState `json:"clients,omitempty"` // the least recently seen first
}

// A ClientState holds what a client has spent.
type ClientState struct {
	Client netip.Addr    `json:"client"`
	Spent  time.Duration `json:"spent"` // time until the client's bucket is full
}

// IsZero reports whether nothing has been spent.
func (s *State) IsZero() bool { return s.Shared == 0 && len(s.Clients) == 0 }

// State returns what has been spent at now.
func (l *Limiter) State(now time.Time) State {
	elapsed := int64(max(now.Sub(l.began), 0))
	s := State{Shared: time.Duration(max(l.rate.state.Load()-elapsed, 0))}
	for i := range l.shards {
		s.Clients = l.shards[i].state(s.Clients, elapsed)
	}
	return s
}

func (s *shard) state(to []ClientState, now int64) []ClientState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rates == nil {
		return to
	}
	for i := s.oldest; i != noClient; i = s.known[i].newer {
		if left := int64(s.known[i].bucket) - now; left > 0 {
			to = append(to, ClientState{netip.AddrFrom16(s.known[i].client).Unmap(), time.Duration(left)})
		}
	}
	return to
}

// Adopt takes over what another process's Limiter had spent at now. A bucket keeps the
// larger amount, so that no client gets more than its rate.
func (l *Limiter) Adopt(s State, now time.Time) {
	elapsed := int64(max(now.Sub(l.began), 0))
	l.rate.adopt(elapsed + int64(s.Shared))
	for _, c := range s.Clients {
		if c.Client.IsValid() && c.Spent > 0 {
			id := clientOf(c.Client)
			l.shard(id).adopt(id, bucket(elapsed+int64(c.Spent)))
		}
	}
}

func (s *shard) adopt(c client, b bucket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.know(c)
	k.bucket = max(k.bucket, b)
}

func (s *sharedBucket) adopt(b int64) {
	for {
		before := s.state.Load()
		if b <= before || s.state.CompareAndSwap(before, b) {
			return
		}
	}
}
