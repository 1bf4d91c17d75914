package validity

import (
	"sync"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// Counts holds the number of connections whose peer no longer verifies, by reason.
type Counts struct {
	Ended    map[certs.Reason]uint64
	Reported map[certs.Reason]uint64 // connections that continued
}

// A finding is a key by which failures are counted.
type finding struct {
	reason certs.Reason
	ended  bool
}

// counts holds the counts of a Set, and the findings that it has not yet reported.
type counts struct {
	mu    sync.Mutex
	total map[finding]uint64
	fresh map[finding]*Finding
}

func (c *counts) add(failure *certs.VerifyError, ended bool) {
	k := finding{failure.Reason, ended}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total[k]++
	f := c.fresh[k]
	if f == nil {
		f = &Finding{Reason: k.reason, Ended: ended, Detail: failure.Detail}
		c.fresh[k] = f
	}
	f.Count++
}

// pending reports whether take would return findings.
func (c *counts) pending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.fresh) > 0
}

// take returns the findings since the last call.
func (c *counts) take() []Finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Finding
	for _, f := range c.fresh {
		all = append(all, *f)
	}
	clear(c.fresh)
	return all
}

// Counts returns the counts so far.
func (s *Set) Counts() Counts {
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	out := Counts{Ended: make(map[certs.Reason]uint64), Reported: make(map[certs.Reason]uint64)}
	for k, n := range s.counts.total {
		if k.ended {
			out.Ended[k.reason] = n
		} else {
			out.Reported[k.reason] = n
		}
	}
	return out
}
