package limit

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// Limits are the configured limits. They are immutable. A zero field means no
// limit.
type Limits struct {
	AtOnce          int // requests in progress of all clients together
	AtOncePerClient int // requests in progress of one client
	Rate            Rate
	RatePerClient   Rate
}

// A Kind is one of the limits.
type Kind int

// The kinds of limits. None means that no limit is exceeded.
const (
	None Kind = iota
	AtOnce
	AtOncePerClient
	OfRate
	OfRatePerClient

	kinds
)

// PerClient reports whether a client's own limit caused the refusal, which the
// client may learn.
func (k Kind) PerClient() bool { return k == AtOncePerClient || k == OfRatePerClient }

// A Limiter enforces a listener's limits. All methods may be called
// concurrently. Limits that are not set cost nothing, and requests of known
// clients do not allocate.
type Limiter struct {
	began   time.Time
	seed    maphash.Seed
	atOnce  atomic.Int64
	rate    sharedBucket
	shards  [shards]shard
	refused [kinds]atomic.Uint64
}

// New returns an empty Limiter.
func New() *Limiter { return &Limiter{began: time.Now(), seed: maphash.MakeSeed()} }

// A Pass records what the Limiter counted, until Leave. The zero Pass records
// nothing.
type Pass struct {
	limiter *Limiter
	client  client
	atOnce  bool // counted in the requests in progress of all clients
	each    bool // counted in the requests in progress of the client
	rated   bool // spent from the client's rate
}

// A Refusal names the exceeded limit. The zero Refusal means admission.
type Refusal struct {
	Kind Kind
	// Wait is how long to wait before a retry. 0: unknown.
	Wait time.Duration
}

// Enter admits one more request of a client and records in p, which must be
// zero, what Leave releases. If it refuses, p records nothing. The limits of
// each client do not apply to the zero Addr, a client without an address. Now
// must not be before the creation of the Limiter.
//
// The limits of each client are checked first, so that a request over its own
// client's limits does not reduce the limits of other clients. A request that
// then exceeds a shared limit spends nothing of its client's rate: otherwise
// the client would later get 429 for requests that were never served.
func (l *Limiter) Enter(p *Pass, address netip.Addr, now time.Time, limits *Limits) (r Refusal) {
	elapsed := int64(max(now.Sub(l.began), 0))
	p.limiter = l
	if (limits.AtOncePerClient > 0 || limits.RatePerClient.Count > 0) && address.IsValid() {
		p.client = clientOf(address)
		if r = l.shard(p.client).enter(p, elapsed, limits); r.Kind != None {
			return l.refuse(p, limits, r)
		}
	}
	if limits.AtOnce > 0 {
		if !l.enter(limits.AtOnce) {
			return l.refuse(p, limits, Refusal{Kind: AtOnce})
		}
		p.atOnce = true
	}
	if limits.Rate.Count > 0 {
		if wait := l.rate.take(elapsed, limits.Rate); wait > 0 {
			return l.refuse(p, limits, Refusal{OfRate, time.Duration(wait)})
		}
	}
	return Refusal{}
}

// enter counts one more request in progress, unless the count is at most. It
// never exceeds the limit, even briefly, because a refused request must not
// take the place of another.
func (l *Limiter) enter(most int) bool {
	for {
		n := l.atOnce.Load()
		if n >= int64(most) {
			return false
		}
		if l.atOnce.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// refuse releases everything that p records.
func (l *Limiter) refuse(p *Pass, limits *Limits, r Refusal) Refusal {
	if p.rated {
		l.shard(p.client).refund(p.client, limits.RatePerClient)
	}
	p.Leave()
	l.refused[r.Kind].Add(1)
	return r
}

// Leave ends what Enter admitted. Further calls have no effect.
func (p *Pass) Leave() {
	if p.atOnce {
		p.limiter.atOnce.Add(-1)
	}
	if p.each {
		p.limiter.shard(p.client).leave(p.client)
	}
	*p = Pass{}
}

// Refused returns how often each limit was exceeded.
func (l *Limiter) Refused() map[Kind]uint64 {
	counts := make(map[Kind]uint64, kinds)
	for k := AtOnce; k < kinds; k++ {
		counts[k] = l.refused[k].Load()
	}
	return counts
}
