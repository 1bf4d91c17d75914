package upstream

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
)

// A Policy is a way to choose an endpoint among those that take traffic. All of
// them heed weights.
type Policy int

const (
	RoundRobin     Policy = iota // in turns, smoothly, as nginx does: weights 5, 1, 1 give a a b a c a a
	LeastRequests                // of two taken at random the one with fewer requests for its weight
	Random                       // at random
	ConsistentHash               // the same endpoint for the same Key; at random for who has none
)

// A tier is endpoints that are chosen among: an Upstream's primaries, or its
// backups. Choosing takes no lock and allocates nothing, and costs the same
// however many there are, as long as those that come up may be chosen. Where one
// may not, what would have been its share goes to the others by their weights.
type tier struct {
	policy    Policy
	endpoints []*Endpoint

	// turns has the index of each endpoint as often as its weight says, evenly
	// mixed. Nil: each once, in their order.
	turns []uint32

	next   atomic.Uint64 // of RoundRobin
	spares atomic.Uint64 // of its turns, given to others
	owners *owners       // of ConsistentHash, else nil
}

func newTier(p Policy, endpoints []*Endpoint) *tier {
	r := &tier{policy: p, endpoints: endpoints}
	weights := make([]int, len(endpoints))
	for i, e := range endpoints {
		weights[i] = int(e.weight.Load())
	}
	r.turns = smooth(weights)
	if p == ConsistentHash {
		r.owners = newOwners(endpoints)
	}
	return r
}

// pick returns the endpoint that t goes to; nil if it may go to none.
func (r *tier) pick(t *Turn) *Endpoint {
	if len(r.endpoints) == 0 {
		return nil
	}
	switch r.policy {
	case LeastRequests:
		return r.lighter(t)
	case Random:
		return r.draw(t, nil)
	case ConsistentHash:
		if t.key.Known {
			return r.owners.pick(t, r.endpoints)
		}
		return r.draw(t, nil)
	}
	return r.inTurn(t)
}

// inTurn returns the endpoint whose turn it is.
func (r *tier) inTurn(t *Turn) *Endpoint {
	// One who was elsewhere already takes none of the turns that others get: an
	// endpoint that fails would come up the more often.
	if t.tries == 0 {
		if e := r.turn(r.next.Add(1) - 1); t.may(e) && e.accepts() {
			return e
		}
	}
	// As with Split: turns that are given to others are evenly spread, too.
	const golden = 0x9E3779B97F4A7C15
	return r.instead(t, r.spares.Add(1)*golden, nil)
}

// lighter returns the better of two endpoints that are drawn.
func (r *tier) lighter(t *Turn) *Endpoint {
	a := r.draw(t, nil)
	if a == nil || len(r.endpoints) == 1 {
		return a
	}
	b := r.draw(t, a)
	if b == nil {
		return a
	}
	var now instant
	if a.underWay.n.Load()*int64(b.share(&now)) > b.underWay.n.Load()*int64(a.share(&now)) {
		return b
	}
	return a
}

// draw returns an endpoint taken at random, but not the one given.
func (r *tier) draw(t *Turn, but *Endpoint) *Endpoint {
	if e := r.turn(rand.Uint64N(r.cycle())); e != but && t.may(e) && e.accepts() {
		return e
	}
	return r.instead(t, rand.Uint64(), but)
}

// cycle returns after how many turns they begin again.
func (r *tier) cycle() uint64 {
	if r.turns == nil {
		return uint64(len(r.endpoints))
	}
	return uint64(len(r.turns))
}

// turn returns whose turn the nth is.
func (r *tier) turn(n uint64) *Endpoint {
	if r.turns == nil {
		return r.endpoints[n%uint64(len(r.endpoints))]
	}
	return r.endpoints[r.turns[n%uint64(len(r.turns))]]
}

// fewEndpoints is how many are looked at as fast as anything else can be done.
const fewEndpoints = 8

// instead returns the endpoint that a point falls on if those that t may go to,
// without the one given, fill the 64 bits with their shares; nil if there is
// none. Where there are many it tries its luck first: to take others until there
// is one that t may go to comes to the same shares.
func (r *tier) instead(t *Turn, point uint64, but *Endpoint) *Endpoint {
	if len(r.endpoints) > fewEndpoints {
		for range fewEndpoints {
			if e := r.turn(rand.Uint64N(r.cycle())); e != but && t.may(e) && e.accepts() {
				return e
			}
		}
	}
	var now instant
	var total uint64
	for _, e := range r.endpoints {
		if e != but && t.may(e) {
			total += e.share(&now)
		}
	}
	at, _ := bits.Mul64(point, total)
	var last *Endpoint
	for _, e := range r.endpoints {
		if e == but || !t.may(e) {
			continue
		}
		share := e.share(&now)
		if at < share {
			return e
		}
		at, last = at-share, e
	}
	return last // some may not be chosen any more since they were counted
}

// maxTurns bounds the memory that weights take: shares are exact to within one
// part in so many.
const maxTurns = 1 << 16

// smooth returns the order of smooth weighted round robin: each time every
// endpoint gains its weight, and the one that has most is chosen and pays the
// sum. Nil: each once, in their order.
func smooth(weights []int) []uint32 {
	divisor, equal := 0, true
	for _, w := range weights {
		equal = equal && w == weights[0]
		divisor = gcd(w, divisor)
	}
	if equal {
		return nil
	}
	sum := 0
	for _, w := range weights {
		sum += w / divisor
	}
	shares, total := make([]int, len(weights)), 0
	for i, w := range weights {
		shares[i] = w / divisor
		if sum > maxTurns {
			shares[i] = max(1, (shares[i]*maxTurns+sum/2)/sum)
		}
		total += shares[i]
	}
	turns := make([]uint32, total)
	current := make([]int, len(weights))
	for n := range turns {
		best := 0
		for i, share := range shares {
			current[i] += share
			if current[i] > current[best] {
				best = i
			}
		}
		current[best] -= total
		turns[n] = uint32(best)
	}
	return turns
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
