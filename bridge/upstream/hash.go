package upstream

import (
	"math"
	"net/netip"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// A HashKey says what of a client or request makes its Key: the one that is set.
type HashKey struct {
	ClientAddress bool
	Header        string // the name of a request header
	Cookie        string // the name of a cookie
}

// A Key is what consistent hashing chooses an endpoint by. The zero Key is that
// of who has none: any endpoint will do.
type Key struct {
	Hash  uint64
	Known bool
}

// KeyOf returns the Key of a value, the same in every process. "" is no value.
func KeyOf(value string) Key { return Key{xxhash.Sum64String(value), value != ""} }

// KeyOfAddress returns the Key of an IP address: that of its text.
func KeyOfAddress(addr netip.Addr) Key {
	if !addr.IsValid() {
		return Key{}
	}
	var text [64]byte // more than any has
	return Key{xxhash.Sum64(addr.Unmap().WithZone("").AppendTo(text[:0])), true}
}

// Keys fall into slots, and each slot belongs to an endpoint: the one that wins
// the weighted rendezvous for it (Schindelhauer and Schomaker, "Weighted
// Distributed Hash Tables", 2005). What an endpoint
// bids for a slot depends on the two alone. So if it goes nothing moves but its
// own slots, to all others by their weights; if it comes, nothing but those that
// it wins; and whoever knows the same endpoints finds the same owners.
//
// A ring of points would move as little only while the number of points of an
// endpoint does not depend on the others' weights, and spread what an endpoint
// leaves less evenly; Maglev's table moves some slots that need not.
const (
	slotBits = 16
	slots    = 1 << slotBits
)

// owners finds the owners of slots.
type owners struct {
	// known has the index of the owner of each slot plus one, once it was asked
	// for; whether the owner takes traffic does not matter. Nil: too few
	// endpoints to be worth it.
	known []atomic.Uint32
}

func newOwners(endpoints []*Endpoint) *owners {
	if len(endpoints) <= fewEndpoints {
		return &owners{}
	}
	return &owners{make([]atomic.Uint32, slots)}
}

// pick returns the endpoint for t's key: the owner of its slot, or of those that t
// may go to the one that would be.
func (o *owners) pick(t *Turn, endpoints []*Endpoint) *Endpoint {
	slot := t.key.Hash >> (64 - slotBits)
	if o.known != nil {
		known := o.known[slot].Load()
		if known == 0 {
			known = uint32(winner(slot, endpoints, nil)) + 1
			o.known[slot].Store(known)
		}
		if e := endpoints[known-1]; t.may(e) && e.since.Load() == 0 {
			return e
		}
	}
	if i := winner(slot, endpoints, t); i >= 0 {
		return endpoints[i]
	}
	return nil
}

// winner returns which endpoint of those that t may go to wins a slot, as they
// count now; -1: none. With no t it is of all of them, by their weights.
func winner(slot uint64, endpoints []*Endpoint, t *Turn) int {
	var now instant
	best, least := -1, math.Inf(1)
	for i, e := range endpoints {
		if t != nil && !t.may(e) {
			continue
		}
		weight := float64(e.weight.Load() * wholeShare)
		if t != nil {
			weight = float64(e.share(&now))
		}
		// -ln(u)/weight is the time of an event whose rate is the weight: the
		// first to have one is each as often as its weight says. -ln(u) is at
		// least 1-u, which most often is too much already.
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

// mix makes every bit of x count for every bit of the result (splitmix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
