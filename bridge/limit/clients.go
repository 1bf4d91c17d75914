package limit

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// MaxClients is the number of clients whose rate is tracked. Beyond that, the
// least recently seen client is forgotten, and would start with a full rate.
// The clients of a listener use about 5 MiB.
const MaxClients = shards * perShard

const (
	shards   = 32 // enough that clients rarely contend
	perShard = 2048
)

// A client is an IPv4 address, or the first half of an IPv6 address, because a
// host usually has a whole /64.
type client [16]byte

func clientOf(a netip.Addr) client {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // every address has such a prefix
		a = p.Addr()
	}
	return a.As16()
}

// A shard holds a part of the clients.
type shard struct {
	mu     sync.Mutex
	atOnce map[client]int32 // requests in progress
	rates  map[client]int32 // index into known
	known  []known
	newest int32 // index into known
	oldest int32
}

// A known client is a node of a list ordered by the last request.
type known struct {
	client       client
	bucket       bucket
	older, newer int32
}

const noClient = -1

// shard returns the shard of a client. The seed keeps clients from choosing
// it.
func (l *Limiter) shard(c client) *shard {
	return &l.shards[maphash.Bytes(l.seed, c[:])%shards]
}

// enter implements Limiter.Enter for the limits of each client.
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

// take spends one from a client's rate.
func (s *shard) take(c client, now int64, r Rate) (wait int64) {
	k := s.know(c)
	k.bucket, wait = k.bucket.take(now, r)
	return wait
}

// know returns a client's node, which becomes the newest. The node may be a new one.
func (s *shard) know(c client) *known {
	i, ok := s.rates[c]
	if ok {
		s.unlink(i)
	} else {
		i = s.room()
		s.known[i] = known{client: c}
		s.rates[c] = i
	}
	s.link(i)
	return &s.known[i]
}

// refund undoes take, unless the client was forgotten meanwhile.
func (s *shard) refund(c client, r Rate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.rates[c]; ok {
		s.known[i].bucket = s.known[i].bucket.refund(r)
	}
}

// room returns a free node for a client, if necessary by forgetting the least
// recently seen one. The node is in no list.
func (s *shard) room() int32 {
	if s.rates == nil {
		s.rates = make(map[client]int32)
		s.newest, s.oldest = noClient, noClient
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

// link makes a node the newest.
func (s *shard) link(i int32) {
	k := &s.known[i]
	k.older, k.newer = s.newest, noClient
	if s.newest != noClient {
		s.known[s.newest].newer = i
	} else {
		s.oldest = i
	}
	s.newest = i
}

func (s *shard) unlink(i int32) {
	k := &s.known[i]
	if k.older != noClient {
		s.known[k.older].newer = k.newer
	} else {
		s.oldest = k.newer
	}
	if k.newer != noClient {
		s.known[k.newer].older = k.older
	} else {
		s.newest = k.older
	}
}
