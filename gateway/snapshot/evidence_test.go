package snapshot

import (
	"maps"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// The record of a CA's use continues when its bundle gets another CA.
func TestEvidenceOutlivesRevisions(t *testing.T) {
	w, other := newTestbed(t), newTestbed(t)
	w.put(w.bundle("trust"))
	before := maps.Collect(w.snap.TrustBundles())["trust"].Evidence()[0]
	w.put(&adminv1.TrustBundle{Name: "trust", Source: &adminv1.TrustBundle_Pem{Pem: string(other.ca.TrustPEM()) + string(w.ca.TrustPEM())}})
	after := maps.Collect(w.snap.TrustBundles())["trust"].Evidence()
	if !after[1].Since.Equal(before.Since) || after[0].Since.Before(before.Since) {
		t.Errorf("recorded since %v, then %v", before.Since, after)
	}
}
