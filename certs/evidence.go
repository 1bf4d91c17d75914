package certs

import (
	"crypto/x509"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Evidence describes how a trust anchor has been used.
type Evidence struct {
	Since    time.Time // when the bundle first contained the anchor, in this process
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

// Inherit makes b continue the records of the bundle that it replaces, for
// certificates in both bundles.
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

// Evidence returns how each certificate has been used, in the order of Infos.
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

// maxAnchorUses bounds the anchors in an AnchorLog. It keeps the most recently
// used.
const maxAnchorUses = 32

// An AnchorLog records which trust anchors have verified the peers of one place: an
// endpoint, or the clients of one TLS policy. It outlives the settings of that place.
// The zero AnchorLog is empty and ready for use; all methods may be called
// concurrently.
type AnchorLog struct {
	mu   sync.Mutex
	uses []AnchorUse
}

// An AnchorUse is the use of one trust anchor.
type AnchorUse struct {
	Anchor   *x509.Certificate
	Last     time.Time // the last handshake that verified a peer by it
	Verified uint64    // how many handshakes verified a peer by it
}

// Note records a handshake that verified a peer. A nil anchor records nothing.
func (l *AnchorLog) Note(anchor *x509.Certificate, now time.Time) {
	if anchor == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest := 0
	for i := range l.uses {
		u := &l.uses[i]
		if u.Anchor == anchor || u.Anchor.Equal(anchor) {
			u.Anchor, u.Last, u.Verified = anchor, now, u.Verified+1
			return
		}
		if u.Last.Before(l.uses[oldest].Last) {
			oldest = i
		}
	}
	if len(l.uses) == maxAnchorUses {
		l.uses = slices.Delete(l.uses, oldest, oldest+1)
	}
	l.uses = append(l.uses, AnchorUse{anchor, now, 1})
}

// AnchorUses returns the uses that several logs of one place have recorded, the latest
// first.
func AnchorUses(logs ...*AnchorLog) []AnchorUse {
	var all []AnchorUse
	for _, l := range logs {
		for _, u := range l.snapshot() {
			i := slices.IndexFunc(all, func(o AnchorUse) bool { return o.Anchor.Equal(u.Anchor) })
			if i < 0 {
				all = append(all, u)
				continue
			}
			all[i].Verified += u.Verified
			if u.Last.After(all[i].Last) {
				all[i].Last = u.Last
			}
		}
	}
	slices.SortStableFunc(all, func(a, b AnchorUse) int { return b.Last.Compare(a.Last) })
	return all
}

func (l *AnchorLog) snapshot() []AnchorUse {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.uses)
}

// Subject returns the subject of the anchor.
func (u AnchorUse) Subject() string { return SubjectOf(u.Anchor) }
