package limit

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// MaxClients is of how many clients at most it is remembered how much of their
// rate they have used. Of more, whoever was heard of least lately is forgotten,
// and begins anew. That is some 5 MiB for a listener.
const MaxClients = shards * perShard

const (
	shards   = 32 // so that clients seldom wait for each other
	perShard = 2048
)

// A client is an address, of IPv6 the first half of it: who has one such address
// has all the others of its /64.
type client [16]byte

func clientOf(a netip.Addr) client {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // which any address has
		a = p.Addr()
	}
	return a.As16()
}

// A shard knows some of the clients.
type shard struct {
	mu     sync.Mutex
	atOnce map[client]int32 // under way
	rates  map[client]int32 // where in known
	known  []known
	newest int32 // in known
	oldest int32
}

// A known client is one of a list in the order in which they were heard of last.
type known struct {
	client       client
	bucket       bucket
	older, newer int32
}

const nobody = -1

// shard returns the shard of a client. Nobody can tell which clients share one.
func (l *Limiter) shard(c client) *shard {
	return &l.shards[maphash.Bytes(l.seed, c[:])%shards]
}

// enter is the Limiter's, for the limits of each client.
func (s *shard) enter(p *Pass, now int64, limits *Limits) Refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if most := limits.AtOncePerClient; most > 0 && int(s.atOnce[p.client]) >= most {
		return Refusal{Kind: AtOncePerClient}
	}
	if limits.RatePerClient.Count > 0 {
		if wait := s.take(p.client, now, limits.RatePerClient); wait > 0 {
			return Refusal{OfRatePerClient, time.Duration(wait)}
		}
		p.rated = true
	}
	if limits.AtOncePerClient > 0 {
		if s.atOnce == nil {
			s.atOnce = make(map[client]int32)
		}
		s.atOnce[p.client]++
		p.each = true
	}
	return Refusal{}
}

func (s *shard) leave(c client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.atOnce[c]--; s.atOnce[c] == 0 {
		delete(s.atOnce, c)
	}
}

// take takes one at a client's rate.
func (s *shard) take(c client, now int64, r Rate) (wait int64) {
	i, ok := s.rates[c]
	if ok {
		s.unlink(i)
	} else {
		i = s.room()
		s.known[i] = known{client: c}
		s.rates[c] = i
	}
	s.link(i)
	k := &s.known[i]
	k.bucket, wait = k.bucket.take(now, r)
	return wait
}

// refund gives back what take took at a client's rate, unless the client was
// forgotten meanwhile.
func (s *shard) refund(c client, r Rate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.rates[c]; ok {
		s.known[i].bucket = s.known[i].bucket.refund(r)
	}
}

// room returns where there is room for one more client, be it that the one heard
// of least lately is forgotten. It is in no list.
func (s *shard) room() int32 {
	if s.rates == nil {
		s.rates = make(map[client]int32)
		s.newest, s.oldest = nobody, nobody
	}
	if len(s.known) < perShard {
		s.known = append(s.known, known{})
		return int32(len(s.known) - 1)
	}
	i := s.oldest
	s.unlink(i)
	delete(s.rates, s.known[i].client)
	return i
}

// link makes one the newest.
func (s *shard) link(i int32) {
	k := &s.known[i]
	k.older, k.newer = s.newest, nobody
	if s.newest != nobody {
		s.known[s.newest].newer = i
	} else {
		s.oldest = i
	}
	s.newest = i
}

func (s *shard) unlink(i int32) {
	k := &s.known[i]
	if k.older != nobody {
		s.known[k.older].newer = k.newer
	} else {
		s.oldest = k.newer
	}
	if k.newer != nobody {
		s.known[k.newer].older = k.older
	} else {
		s.newest = k.older
	}
}
