package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"sync"
	"time"
)

// maxVerified bounds the chains that a verifier caches.
const maxVerified = 1024

// verified caches the chains that passed verifier.verifyChain and the period in
// which each passes. A verifier never changes, so its verdict on a chain
// depends only on the time, and changes only at the limits of that period.
// Failures are not cached.
type verified struct {
	mu     sync.Mutex
	chains map[[sha256.Size]byte]passedChain
}

// A passedChain holds a chain that passed, from the leaf to its anchor, and the period
// in which it passes.
type passedChain struct {
	period
	chain []*x509.Certificate
}

// A period is a closed interval of time.
type period struct{ from, to time.Time }

func (p period) holds(t time.Time) bool { return !t.Before(p.from) && !t.After(p.to) }

// intersect returns the intersection of two periods.
func (p period) intersect(from, to time.Time) period {
	if from.After(p.from) {
		p.from = from
	}
	if to.Before(p.to) {
		p.to = to
	}
	return p
}

// chainKey identifies the certificates that a peer presented, in their order.
// It hashes their digests, which have a fixed length, so different lists cannot
// have the same bytes.
func chainKey(certs []*x509.Certificate) [sha256.Size]byte {
	var both [2 * sha256.Size]byte
	for _, c := range certs {
		one := sha256.Sum256(c.Raw)
		copy(both[sha256.Size:], one[:])
		all := sha256.Sum256(both[:])
		copy(both[:], all[:])
	}
	return [sha256.Size]byte(both[:])
}

// get returns the cached chain for the certificates that a peer presented, if
// the chain passes at now.
func (v *verified) get(key [sha256.Size]byte, now time.Time) (passedChain, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	p, ok := v.chains[key]
	return p, ok && p.holds(now)
}

// add caches a chain that passed. When full, it evicts an arbitrary entry.
func (v *verified) add(key [sha256.Size]byte, p passedChain) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.chains == nil {
		v.chains = make(map[[sha256.Size]byte]passedChain)
	}
	if _, known := v.chains[key]; !known && len(v.chains) >= maxVerified {
		for other := range v.chains {
			delete(v.chains, other)
			break
		}
	}
	v.chains[key] = p
}

// passingPeriod returns the period around now in which a chain that passed at now still
// passes: all its certificates are valid, and no relevant revocation list
// becomes valid or expires.
func (v *verifier) passingPeriod(chain []*x509.Certificate, now time.Time) period {
	p := period{chain[0].NotBefore, chain[0].NotAfter}
	for _, c := range chain[1:] {
		p = p.intersect(c.NotBefore, c.NotAfter)
	}
	for _, b := range v.trust {
		if b.crls == nil || !b.holds(chain[len(chain)-1]) {
			continue
		}
		for _, issuer := range chain[1:] {
			for _, l := range b.crls.byIssuer[string(issuer.RawSubject)] {
				p = l.narrow(p, now)
			}
		}
	}
	return p
}

// narrow returns the part of p in which the list is current, or expired, or not yet
// valid, as it is at now. All times in a list are whole seconds.
func (l *crl) narrow(p period, now time.Time) period {
	switch {
	case l.isCurrent(now):
		return p.intersect(l.list.ThisUpdate, l.list.NextUpdate)
	case now.Before(l.list.ThisUpdate):
		return p.intersect(p.from, l.list.ThisUpdate.Add(-1))
	default:
		return p.intersect(l.list.NextUpdate.Add(1), p.to)
	}
}
