package inventory

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Listing the CAs that upstreams share takes time linear in the number of upstreams.
func TestListingSharedCAsIsLinearInTheUpstreams(t *testing.T) {
	var cas []byte
	for range 20 {
		cas = append(cas, certstest.NewCA(t).TrustPEM()...)
	}
	// list returns the bytes that a listing allocates.
	list := func(upstreams int) uint64 {
		all := []store.Resource{&adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_Pem{Pem: string(cas)}}}
		for i := range upstreams {
			all = append(all, &adminv1.Upstream{Name: fmt.Sprintf("u-%04d", i), Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1"}},
				Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{TrustBundles: []string{"corp"}, VerifyName: "x.example"}}})
		}
		state, err := store.Restore(1, all)
		if err != nil {
			t.Fatal(err)
		}
		snap := snapshot.Compiler{}.Restore(t.Context(), state)
		if down := snap.Problems(); len(down) > 0 {
			t.Fatalf("%d resources are down; the reason of the first: %s", len(down), down[0].Reason)
		}
		v := New(func() *snapshot.Snapshot { return snap }, nil)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		listed := v.Certificates()
		runtime.ReadMemStats(&after)
		if len(listed) != 20 {
			t.Fatalf("%d certificates are listed", len(listed))
		}
		for _, c := range listed {
			if int(c.GetUsedByCount()) != upstreams || len(c.GetUsedBy()) != maxUsers {
				t.Fatalf("%d of %d users are listed, want %d of %d", len(c.GetUsedBy()), c.GetUsedByCount(), maxUsers, upstreams)
			}
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	const few, many = 200, 4000
	a, b := list(few)/few, list(many)/many
	if b > 2*a {
		t.Errorf("a listing allocates %d bytes for each of %d upstreams, and %d for each of %d", a, few, b, many)
	}
}
