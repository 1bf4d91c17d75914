package limit

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// Limits are what is allowed. They are immutable. A zero field is no limit.
type Limits struct {
	AtOnce          int // under way, of all clients together
	AtOncePerClient int // under way, of one client
	Rate            Rate
	RatePerClient   Rate
}

// A Kind is one of the limits.
type Kind int

// The kinds of limits. None is that of what is within all of them.
const (
	None Kind = iota
	AtOnce
	AtOncePerClient
	OfRate
	OfRatePerClient

	kinds
)

// PerClient reports whether it is the one client that is the cause, whom it may
// be told.
func (k Kind) PerClient() bool { return k == AtOncePerClient || k == OfRatePerClient }

// A Limiter keeps a listener to its limits. All methods may be called
// concurrently. A limit that is not set costs nothing, and none costs an
// allocation, once a client is known.
type Limiter struct {
	began   time.Time
	seed    maphash.Seed
	atOnce  atomic.Int64
	rate    sharedBucket
	shards  [shards]shard
	refused [kinds]atomic.Uint64
}

// New returns a Limiter that has taken on nothing.
func New() *Limiter { return &Limiter{began: time.Now(), seed: maphash.MakeSeed()} }

// A Pass is what the Limiter counts until Leave. The zero Pass is nothing.
type Pass struct {
	limiter *Limiter
	client  client
	atOnce  bool // counted among all clients' requests under way
	each    bool // counted among the client's
	rated   bool // spent at the client's rate
}

// A Refusal says which limit something is over. The zero Refusal: none.
type Refusal struct {
	Kind Kind
	// Wait is when it is worth asking again. 0: nobody knows.
	Wait time.Duration
}

// Enter takes on one more of a client's, and notes in p, which is zero, what is to
// be given back; or it says why not, and nothing is. Limits of each client are
// none for who has no address: it is the zero Addr. Now must not be before the
// Limiter was made.
//
// The limits of each client are checked first, so that a request over its own
// client's limits takes nothing away from other clients. A request that is then
// over a shared limit spends nothing of its client's rate: the client would else
// be told 429 for requests that nobody served.
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

// enter counts one more under way, unless most are. It never counts too many, not
// even for a moment: a request that is refused must not cost another its place.
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

// refuse takes back everything that p counts.
func (l *Limiter) refuse(p *Pass, limits *Limits, r Refusal) Refusal {
	if p.rated {
		l.shard(p.client).refund(p.client, limits.RatePerClient)
	}
	p.Leave()
	l.refused[r.Kind].Add(1)
	return r
}

// Leave says that what was taken on is over. Further calls do nothing.
func (p *Pass) Leave() {
	if p.atOnce {
		p.limiter.atOnce.Add(-1)
	}
	if p.each {
		p.limiter.shard(p.client).leave(p.client)
	}
	*p = Pass{}
}

// Refused tells how often something was over each limit.
func (l *Limiter) Refused() map[Kind]uint64 {
	counts := make(map[Kind]uint64, kinds)
	for k := AtOnce; k < kinds; k++ {
		counts[k] = l.refused[k].Load()
	}
	return counts
}
