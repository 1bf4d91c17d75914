package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"sync"
	"time"
)

// maxVerified bounds how many chains a verifier remembers.
const maxVerified = 1024

// verified remembers which chains have passed verifier.verifyChain, and when
// they would pass again. A verifier never changes, so apart from the chain its
// answer depends on the time alone, and on that only as it passes the ends of
// what the answer rests on. A failure is never remembered.
type verified struct {
	mu     sync.Mutex
	chains map[[sha256.Size]byte]period
}

// A period is a time with both its ends.
type period struct{ from, to time.Time }

func (p period) holds(t time.Time) bool { return !t.Before(p.from) && !t.After(p.to) }

// and returns what two periods have in common.
func (p period) and(from, to time.Time) period {
	if from.After(p.from) {
		p.from = from
	}
	if to.Before(p.to) {
		p.to = to
	}
	return p
}

// chainKey identifies what a peer presented, in its order. DER says itself where
// it ends, but a digest of digests does not have to rely on that.
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

// passes reports whether the chain is known to pass at a time.
func (v *verified) passes(key [sha256.Size]byte, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	p, ok := v.chains[key]
	return ok && p.holds(now)
}

// add remembers a chain that passed. When there are too many any other goes.
func (v *verified) add(key [sha256.Size]byte, p period) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.chains == nil {
		v.chains = make(map[[sha256.Size]byte]period)
	}
	if _, known := v.chains[key]; !known && len(v.chains) >= maxVerified {
		for other := range v.chains {
			delete(v.chains, other)
			break
		}
	}
	v.chains[key] = p
}

// lasts returns when a chain that has passed at now would pass again: while each
// of its certificates is valid, and no revocation list that can speak of them
// comes into force or goes out of it.
func (v *verifier) lasts(chain []*x509.Certificate, now time.Time) period {
	p := period{chain[0].NotBefore, chain[0].NotAfter}
	for _, c := range chain[1:] {
		p = p.and(c.NotBefore, c.NotAfter)
	}
	for _, b := range v.trust {
		if b.crls == nil || !b.holds(chain[len(chain)-1]) {
			continue
		}
		for _, issuer := range chain[1:] {
			for _, l := range b.crls.byIssuer[string(issuer.RawSubject)] {
				p = l.lasts(p, now)
			}
		}
	}
	return p
}

// lasts narrows p to the times at which the list is in date if it is at now, and
// is not if it is not. All times in a list are whole seconds.
func (l *crl) lasts(p period, now time.Time) period {
	switch {
	case l.inDate(now):
		return p.and(l.list.ThisUpdate, l.list.NextUpdate)
	case now.Before(l.list.ThisUpdate):
		return p.and(p.from, l.list.ThisUpdate.Add(-1))
	default:
		return p.and(l.list.NextUpdate.Add(1), p.to)
	}
}
