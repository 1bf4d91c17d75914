package upstream

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
)

// A Policy chooses an endpoint among those that take traffic. Every policy
// honors weights.
type Policy int

const (
	RoundRobin     Policy = iota // smooth, as in nginx: weights 5, 1, 1 give a a b a c a a
	LeastRequests                // the endpoint with fewer requests for its weight, of two random ones
	Random                       // at random
	ConsistentHash               // chooses the same endpoint for the same Key, or a random one without a Key
)

// A tier is a set of endpoints to choose from: an Upstream's primaries or its
// backups. Choosing takes no lock, allocates nothing and, while all endpoints
// are available, takes constant time. The share of an unavailable endpoint
// goes to the others by their weights.
type tier struct {
	policy    Policy
	endpoints []*Endpoint

	// turns holds the index of each endpoint in proportion to its weight, evenly
	// mixed. Nil: each index once, in order.
	turns []uint32

	next   atomic.Uint64 // RoundRobin's position
	spares atomic.Uint64 // turns given to other endpoints
	owners *owners       // for ConsistentHash, else nil
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

// pick returns the endpoint for t, or nil if t can use none of them.
func (r *tier) pick(t *Turn) *Endpoint {
	if len(r.endpoints) == 0 {
		return nil
	}
	switch r.policy {
	case LeastRequests:
		return r.leastLoaded(t)
	case Random:
		return r.draw(t, nil)
	case ConsistentHash:
		if t.key.Known {
			return r.owners.pick(t, r.endpoints)
		}
		return r.draw(t, nil)
	}
	return r.roundRobin(t)
}

// roundRobin returns the next endpoint in round-robin order.
func (r *tier) roundRobin(t *Turn) *Endpoint {
	// A retry does not advance the position. Otherwise a failing endpoint would be
	// chosen more often.
	if t.tries == 0 {
		if e := r.atPosition(r.next.Add(1) - 1); t.canUse(e) && e.accepts() {
			return e
		}
	}
	// As in Split: reassigned turns are evenly spread, too.
	const golden = 0x9E3779B97F4A7C15
	return r.pickOther(t, r.spares.Add(1)*golden, nil)
}

// leastLoaded returns the less loaded of two random endpoints.
func (r *tier) leastLoaded(t *Turn) *Endpoint {
	a := r.draw(t, nil)
	if a == nil || len(r.endpoints) == 1 {
		return a
	}
	b := r.draw(t, a)
	if b == nil {
		return a
	}
	var now instant
	if a.inProgress.n.Load()*int64(b.share(&now)) > b.inProgress.n.Load()*int64(a.share(&now)) {
		return b
	}
	return a
}

// draw returns a random endpoint other than the given one.
func (r *tier) draw(t *Turn, except *Endpoint) *Endpoint {
	if e := r.atPosition(rand.Uint64N(r.cycle())); e != except && t.canUse(e) && e.accepts() {
		return e
	}
	return r.pickOther(t, rand.Uint64(), except)
}

// cycle returns the number of turns in one cycle.
func (r *tier) cycle() uint64 {
	if r.turns == nil {
		return uint64(len(r.endpoints))
	}
	return uint64(len(r.turns))
}

// atPosition returns the endpoint at position n of the order.
func (r *tier) atPosition(n uint64) *Endpoint {
	if r.turns == nil {
		return r.endpoints[n%uint64(len(r.endpoints))]
	}
	return r.endpoints[r.turns[n%uint64(len(r.turns))]]
}

// fewEndpoints is the number of endpoints that can be scanned at negligible
// cost.
const fewEndpoints = 8

// pickOther maps a point to an endpoint: the endpoints that t can use, except
// the given one, divide the 64-bit range by their shares. It returns nil if t
// can use none. With many endpoints it first draws random endpoints until one
// is usable, which produces the same shares.
func (r *tier) pickOther(t *Turn, point uint64, except *Endpoint) *Endpoint {
	if len(r.endpoints) > fewEndpoints {
		for range fewEndpoints {
			if e := r.atPosition(rand.Uint64N(r.cycle())); e != except && t.canUse(e) && e.accepts() {
				return e
			}
		}
	}
	var now instant
	var total uint64
	for _, e := range r.endpoints {
		if e != except && t.canUse(e) {
			total += e.share(&now)
		}
	}
	at, _ := bits.Mul64(point, total)
	var last *Endpoint
	for _, e := range r.endpoints {
		if e == except || !t.canUse(e) {
			continue
		}
		share := e.share(&now)
		if at < share {
			return e
		}
		at, last = at-share, e
	}
	return last // endpoints may have become unavailable since they were counted
}

// maxTurns bounds the memory for weights: shares are exact to within one part
// in maxTurns.
const maxTurns = 1 << 16

// smooth returns the order of smooth weighted round robin: in each step every
// endpoint gains its weight, and the endpoint with the highest value is chosen
// and loses the sum. Nil: each index once, in order.
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
