package fleet

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/rollout"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd/etcdtest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A runner is a gateway that follows its fleet until stop is called.
type runner struct {
	*gateway
	dir  string
	stop func()
}

// run starts a gateway with an ID. An empty dir stands for a new data directory.
func run(t *testing.T, c *etcdtest.Cluster, id, dir string) *runner {
	t.Helper()
	if dir == "" {
		dir = filepath.Join(t.TempDir(), "data")
	}
	return start(t, joinAs(t, c, id, dir, ages), dir)
}

// start makes a gateway follow its fleet.
func start(t *testing.T, g *gateway, dir string) *runner {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { g.Run(ctx) })
	r := &runner{g, dir, sync.OnceFunc(func() {
		cancel()
		running.Wait()
		g.Close()
	})}
	t.Cleanup(r.stop)
	return r
}

// await waits until a condition holds.
func await(t *testing.T, condition string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("it did not happen: %s", condition)
		}
	}
}

// startFleet starts the gateways a, b and c with revision 1.
func startFleet(t *testing.T) (cluster *etcdtest.Cluster, a, b, c *runner) {
	t.Helper()
	cluster = etcdtest.Start(t, 1)
	a, b, c = run(t, cluster, "a", ""), run(t, cluster, "b", ""), run(t, cluster, "c", "")
	await(t, "the gateways are listed", func() bool {
		all, _, err := a.Gateways(t.Context())
		return err == nil && len(all) == 3 && !slices.ContainsFunc(all, func(g *adminv1.Gateway) bool { return !g.GetConnected() })
	})
	if err := a.put("u", 1); err != nil {
		t.Fatal(err)
	}
	at(t, 1, a, b, c)
	return cluster, a, b, c
}

// at waits until gateways are at a revision.
func at(t *testing.T, revision int64, gateways ...*runner) {
	t.Helper()
	for _, g := range gateways {
		await(t, fmt.Sprintf("gateway %s is at revision %d", g.id, revision), func() bool { return g.State().Revision() == revision })
	}
}

// stage commits revision 2 as a rollout with the canary a, by a gateway that does not run.
func stage(t *testing.T, cluster *etcdtest.Cluster, hold time.Duration) {
	t.Helper()
	writer := joinAs(t, cluster, "writer", filepath.Join(t.TempDir(), "data"), ages)
	defer writer.Close()
	if err := writer.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := store.Edit{Puts: []store.Put{{Resource: &adminv1.Upstream{Name: "u", Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:2"}}}}}}
	d := writer.State().Edit(e, new(invalid.List))
	record := revisions.NewRecord(d, e, time.Now(), func(store.Ref) string { return "" })
	err := writer.Stage(t.Context(), d, record, &adminv1.Rollout{
		Canaries: &adminv1.Canaries{Gateways: &adminv1.Canaries_Selector{Selector: "name=a"}}, Hold: durationpb.New(hold),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ended checks how the rollout of revision 2 ended.
func ended(t *testing.T, g *runner, state adminv1.RolloutState, message string) {
	t.Helper()
	end, err := g.AwaitRollout(t.Context(), 2)
	if err != nil || end.GetState() != state || !strings.Contains(end.GetMessage(), message) {
		t.Errorf("the end of the rollout: %v, %v", end, err)
	}
}

// ages is longer than any test.
const ages = 24 * time.Hour

const (
	promoted   = adminv1.RolloutState_ROLLOUT_STATE_PROMOTED
	rolledBack = adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK
)

func TestARolloutContinuesWhenItsWriterDies(t *testing.T) {
	t.Parallel()
	cluster, a, b, c := startFleet(t)
	stage(t, cluster, time.Second) // the writer stops at once
	ended(t, c, promoted, "no traffic")
	at(t, 2, a, b, c)
	head, err := c.remote.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := head.Pending(); err != nil || p != nil {
		t.Errorf("pending: %v, %v", p, err)
	}
}

func TestAnotherGatewayConductsARolloutWhenTheConductorLeaves(t *testing.T) {
	t.Parallel()
	cluster, a, b, c := startFleet(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lead, err := b.remote.Lead(ctx, "ghost")
	if err != nil || lead == nil {
		t.Fatal(lead, err)
	}
	stage(t, cluster, time.Second)
	await(t, "the canary reports that its hold is over", func() bool {
		all, _, err := c.Gateways(t.Context())
		return err == nil && all[0].GetRollout().GetDuration().AsDuration() > time.Second
	})
	if second, err := c.remote.Lead(t.Context(), "c"); err != nil || second != nil {
		t.Errorf("a second conductor: %v, %v", second, err)
	}
	if b.State().Revision() != 1 || c.State().Revision() != 1 {
		t.Error("gateways that are not canaries follow a rollout without a decision")
	}
	lead.Leave()
	cancel()
	<-lead.Lost()
	ended(t, c, promoted, "")
	at(t, 2, a, b, c)
}

func TestAnotherGatewayConductsARolloutWhenTheConductorDies(t *testing.T) {
	t.Parallel()
	cluster, a, b, c := startFleet(t)
	ghost := joinAs(t, cluster, "ghost", filepath.Join(t.TempDir(), "data"), 2*time.Second)
	defer ghost.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lead, err := ghost.remote.Lead(ctx, "ghost")
	if err != nil || lead == nil {
		t.Fatal(lead, err)
	}
	stage(t, cluster, time.Second)
	cancel() // the lease expires
	<-lead.Lost()
	ended(t, c, promoted, "")
	at(t, 2, a, b, c)
}

func TestADecisionStandsWhenItsConductorDies(t *testing.T) {
	t.Parallel()
	for state, revision := range map[adminv1.RolloutState]int64{promoted: 2, rolledBack: 3} {
		t.Run(state.String(), func(t *testing.T) {
			t.Parallel()
			cluster, a, b, c := startFleet(t)
			stage(t, cluster, ages)
			ghost := joinAs(t, cluster, "conductor", filepath.Join(t.TempDir(), "data"), ages)
			defer ghost.Close()
			head, err := ghost.readHead(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			pending, err := head.Pending()
			if err != nil {
				t.Fatal(err)
			}
			end := rollout.NewJudge(pending.GetRollout(), time.Now()).End(nil, state, "because", time.Now())
			if err := (conductor{ghost.Member}).end(t.Context(), head, end, store.Origin{Method: byRollout}); err != nil {
				t.Fatal(err)
			}
			ended(t, b, state, "because")
			at(t, revision, a, b, c)
			for _, g := range []*runner{a, b, c} {
				u := g.State().Get(adminv1.Kind_KIND_UPSTREAM, "u").(*adminv1.Upstream)
				want := map[adminv1.RolloutState]string{promoted: "127.0.0.1:2", rolledBack: "127.0.0.1:1"}[state]
				if u.GetEndpoints()[0].GetAddress() != want {
					t.Errorf("gateway %s has %v", g.id, u)
				}
			}
			// The decision of a slow conductor changes nothing.
			if err := (conductor{ghost.Member}).end(t.Context(), head, end, store.Origin{Method: byRollout}); err != nil {
				t.Fatal(err)
			}
			if now, err := a.remote.Head(t.Context()); err != nil || now.Revision() != revision {
				t.Errorf("a second decision made revision %d, %v", now.Revision(), err)
			}
		})
	}
}

func TestOneOfTwoDecisionsStands(t *testing.T) {
	t.Parallel()
	cluster, a, b, c := startFleet(t)
	stage(t, cluster, ages)
	at(t, 2, a)
	var deciding sync.WaitGroup
	var confirmed, reverted error
	deciding.Go(func() { _, confirmed = b.Promote(t.Context(), 2, "uid:1") })
	deciding.Go(func() { _, reverted = c.Revert(t.Context(), 2, store.Edit{Origin: store.Origin{Principal: "uid:2"}}) })
	deciding.Wait()
	switch {
	case confirmed == nil && errors.Is(reverted, ErrBehind):
		ended(t, a, promoted, "confirmed by uid:1")
		at(t, 2, a, b, c)
	case reverted == nil && errors.Is(confirmed, ErrBehind):
		ended(t, a, rolledBack, "rolled back by uid:2")
		at(t, 3, a, b, c)
	default:
		t.Errorf("confirmed: %v; rolled back: %v", confirmed, reverted)
	}
}

func TestARolloutIsRolledBackWhenACanaryDies(t *testing.T) {
	t.Parallel()
	cluster, a, b, c := startFleet(t)
	stage(t, cluster, ages)
	at(t, 2, a)
	a.stop()
	ended(t, b, rolledBack, "the canary a has lost its connection to etcd, or has stopped")
	at(t, 3, b, c)
	at(t, 3, run(t, cluster, "a", a.dir))
}

func TestARolloutIsRolledBackWhenACanaryRestarts(t *testing.T) {
	t.Parallel()
	cluster, a, b, c := startFleet(t)
	stage(t, cluster, ages)
	at(t, 2, a)
	a.stop()
	a = run(t, cluster, "a", a.dir)
	ended(t, b, rolledBack, "the canary a")
	at(t, 3, a, b, c)
}

func TestARolloutEndsWhenTheWholeFleetRestarts(t *testing.T) {
	t.Parallel()
	cluster, a, b, c := startFleet(t)
	stage(t, cluster, ages)
	at(t, 2, a)
	for _, g := range []*runner{a, b, c} {
		g.stop()
	}
	a, b, c = run(t, cluster, "a", a.dir), run(t, cluster, "b", b.dir), run(t, cluster, "c", c.dir)
	ended(t, c, rolledBack, "the canary a")
	at(t, 3, a, b, c)
}

func TestARolloutNeedsACanary(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, 1)
	g := join(t, cluster) // not listed: it does not run
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := store.Edit{Puts: []store.Put{{Resource: &adminv1.Upstream{Name: "u"}}}}
	d := g.State().Edit(e, new(invalid.List))
	err := g.Stage(t.Context(), d, revisions.NewRecord(d, e, time.Now(), func(store.Ref) string { return "" }), &adminv1.Rollout{Canaries: &adminv1.Canaries{Gateways: &adminv1.Canaries_Percent{Percent: 100}}})
	var bad *invalid.Error
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "options.rollout.canaries") {
		t.Errorf("%v", err)
	}
	if head, err := g.remote.Head(t.Context()); err != nil || head.Revision() != 0 {
		t.Errorf("%v, %v", head, err)
	}
}
