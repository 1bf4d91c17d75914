package gateway

import (
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// The clocks of the gateways differ by five minutes and by ten. Rollouts are held, and
// revisions are confirmed, as with equal clocks: no gateway compares its time with a time of
// another one.
func TestClocksOfAFleetMayDiffer(t *testing.T) {
	t.Parallel()
	const within = 2 * time.Second
	f := startSkewedFleet(t, 5*time.Minute)
	revision := int64(1)
	for _, writer := range f.all() {
		revision++
		began := time.Now()
		answer := <-f.roll(writer, map[bool]string{true: f.alias, false: f.good}[revision%2 == 0], within)
		if r := answer.change.GetRollout(); answer.err != nil || r.GetState() != adminv1.RolloutState_ROLLOUT_STATE_PROMOTED || time.Since(began) < within {
			t.Fatalf("the rollout of %d took %v: %v, %v", revision, time.Since(began), r, answer.err)
		}
		converge(t, revision, f.all()...)
	}
	all, head, err := f.b.fleet.Gateways(t.Context())
	if err != nil || len(all) != 3 || head != revision {
		t.Fatalf("%d gateways at %d, %v", len(all), head, err)
	}
	for _, g := range all {
		if !g.GetConnected() || g.GetLag() != 0 {
			t.Errorf("listed as %v", g)
		}
	}
	// Each gateway takes a write that must be confirmed, and stops at once.
	for i, writer := range []*testGateway{f.c, f.a} {
		others := []*testGateway{f.b, f.a}[:2-i]
		began := time.Now()
		writer.apply(store.Edit{Puts: puts(plainUpstream("up", f.bad)), ConfirmWithin: within})
		revision++
		for _, g := range others {
			eventually(t, "the gateway has it pending", func() bool {
				return g.Status().GetPending().GetRevision() == revision || g.State().Revision() > revision
			})
		}
		if err := writer.stop(); err != nil {
			t.Fatal(err)
		}
		revision++
		converge(t, revision, others...)
		if waited := time.Since(began); waited < within {
			t.Errorf("revision %d was rolled back after %v", revision-1, waited)
		}
		if r, err := f.b.History().Revision(revision); err != nil || r.GetMethod() != byDeadline {
			t.Errorf("%v, %v", r, err)
		}
	}
}
