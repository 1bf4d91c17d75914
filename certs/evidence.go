package certs

import (
	"crypto/x509"
	"maps"
	"sync/atomic"
	"time"
)

// Evidence says how a trust anchor has been used.
type Evidence struct {
	Since    time.Time // when the bundle first had the anchor, in this process
	Last     time.Time // the last handshake that verified a peer by it; zero if never
	Verified uint64    // how many handshakes verified a peer by it
}

// An anchorUse records the use of one anchor.
type anchorUse struct {
	since time.Time
	last  atomic.Int64 // Unix nanoseconds; 0 if never
	count atomic.Uint64
}

// newUses returns a record for each certificate of a new bundle, by its DER.
func newUses(certs []*x509.Certificate) map[string]*anchorUse {
	now := time.Now()
	uses := make(map[string]*anchorUse, len(certs))
	for _, c := range certs {
		uses[string(c.Raw)] = &anchorUse{since: now}
	}
	return uses
}

// note records that a peer was verified by an anchor, which b need not hold.
func (b *TrustBundle) note(anchor *x509.Certificate, now time.Time) {
	if u := (*b.uses.Load())[string(anchor.Raw)]; u != nil {
		u.last.Store(now.UnixNano())
		u.count.Add(1)
	}
}

// Inherit makes b continue the records of the bundle that it replaces, for the
// certificates that both hold.
func (b *TrustBundle) Inherit(replaced *TrustBundle) {
	before := *replaced.uses.Load()
	uses := maps.Clone(*b.uses.Load())
	for raw := range uses {
		if u := before[raw]; u != nil {
			uses[raw] = u
		}
	}
	b.uses.Store(&uses)
}

// Evidence says how each certificate has been used, in the order of Infos.
func (b *TrustBundle) Evidence() []Evidence {
	uses := *b.uses.Load()
	out := make([]Evidence, len(b.certs))
	for i, c := range b.certs {
		u := uses[string(c.Raw)]
		out[i] = Evidence{Since: u.since, Verified: u.count.Load()}
		if last := u.last.Load(); last != 0 {
			out[i].Last = time.Unix(0, last)
		}
	}
	return out
}
