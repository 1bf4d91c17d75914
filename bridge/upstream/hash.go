package upstream

import (
	"math"
	"net/netip"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// A HashKey selects the property that determines a Key. One field is set.
type HashKey struct {
	ClientAddress bool
	Header        string // the name of a request header
	Cookie        string // the name of a cookie
}

// A Key determines the endpoint in consistent hashing. The zero Key means that there
// is no key: any endpoint may be chosen.
type Key struct {
	Hash  uint64
	Known bool
}

// KeyOf returns the Key of a value, the same in every process. "" means no
// value.
func KeyOf(value string) Key { return Key{xxhash.Sum64String(value), value != ""} }

// KeyOfAddress returns the Key of an IP address' text form.
func KeyOfAddress(addr netip.Addr) Key {
	if !addr.IsValid() {
		return Key{}
	}
	var text [64]byte // longer than any address
	return Key{xxhash.Sum64(addr.Unmap().WithZone("").AppendTo(text[:0])), true}
}

// Keys map to slots, and each slot belongs to the endpoint that wins the weighted
// rendezvous for it (Schindelhauer and Schomaker, "Weighted Distributed Hash
// Tables", 2005). An endpoint's bid for a slot depends only on the endpoint and the
// slot. So when an endpoint leaves, only its slots move, and they spread over all
// others by weight. When an endpoint joins, only the slots that it wins move.
// Processes with the same endpoints find the same owners.
//
// A ring of points moves as few slots only if an endpoint's number of points does not
// depend on the weights of the others. It also spreads the slots of a leaving endpoint
// less evenly. Maglev's table moves some slots unnecessarily.
const (
	slotBits = 16
	slots    = 1 << slotBits
)

// owners finds the owners of slots.
type owners struct {
	// known caches the index of each slot's owner plus one; availability does not
	// matter. Nil: too few endpoints for a cache to pay off.
	known []atomic.Uint32
}

func newOwners(endpoints []*Endpoint) *owners {
	if len(endpoints) <= fewEndpoints {
		return &owners{}
	}
	return &owners{make([]atomic.Uint32, slots)}
}

// pick returns the endpoint for t's key: the owner of its slot or, if t cannot
// use it, the winner among the endpoints that t can use.
func (o *owners) pick(t *Turn, endpoints []*Endpoint) *Endpoint {
	slot := t.key.Hash >> (64 - slotBits)
	if o.known != nil {
		known := o.known[slot].Load()
		if known == 0 {
			known = uint32(winner(slot, endpoints, nil)) + 1
			o.known[slot].Store(known)
		}
		if e := endpoints[known-1]; t.canUse(e) && e.since.Load() == 0 {
			return e
		}
	}
	if i := winner(slot, endpoints, t); i >= 0 {
		return endpoints[i]
	}
	return nil
}

// winner returns the index of the endpoint that wins a slot among those that t
// can use, by their current shares; or -1 if t can use none. With a nil t it
// considers all endpoints, by their weights.
func winner(slot uint64, endpoints []*Endpoint, t *Turn) int {
	var now instant
	best, least := -1, math.Inf(1)
	for i, e := range endpoints {
		if t != nil && !t.canUse(e) {
			continue
		}
		weight := float64(e.weight.Load() * wholeShare)
		if t != nil {
			weight = float64(e.share(&now))
		}
		// -ln(u)/weight is the time of an event with the weight as its rate: each
		// endpoint's event is first as often as its weight says. -ln(u) is at least
		// 1-u, a bound that rules out most endpoints cheaply.
		u := (float64(mix(e.seed^slot*0x9E3779B97F4A7C15)>>11) + 0.5) / (1 << 53)
		if (1-u)/weight >= least {
			continue
		}
		if bid := -math.Log(u) / weight; bid < least {
			best, least = i, bid
		}
	}
	return best
}

// mix spreads every bit of x over the whole result (splitmix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
