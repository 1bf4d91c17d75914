package fleet

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd/etcdtest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// runToKill is run for a gateway that kill stops without notice, so that its lease stays.
func runToKill(t *testing.T, c *etcdtest.Cluster, id, dir string) (r *runner, kill func()) {
	t.Helper()
	if dir == "" {
		dir = filepath.Join(t.TempDir(), "data")
	}
	proxy := etcdtest.NewProxy(t, c.Endpoints()[0])
	r = start(t, joinThrough(t, []string{proxy.Address()}, id, dir, ages), dir)
	return r, func() {
		proxy.Silence() // a client that is closed can still revoke a lease
		r.remote.Close()
		r.stop()
	}
}

// listed returns a gateway as another one lists it; nil: it does not.
func listed(t *testing.T, by *runner, id string) *adminv1.Gateway {
	t.Helper()
	all, _, err := by.Gateways(t.Context())
	if err != nil { // such as before the fleet exists
		return nil
	}
	i := slices.IndexFunc(all, func(g *adminv1.Gateway) bool { return g.GetGatewayId() == id })
	if i < 0 {
		return nil
	}
	return all[i]
}

// owns waits until a process is listed under its ID, with the processes of duplicates.
func owns(t *testing.T, by, owner *runner, duplicates ...*runner) {
	t.Helper()
	var want []string
	for _, d := range duplicates {
		want = append(want, d.claim.Process)
	}
	slices.Sort(want)
	await(t, "the process is listed with its duplicates", func() bool {
		g := listed(t, by, owner.id)
		var got []string
		for _, d := range g.GetDuplicates() {
			got = append(got, d.GetProcessId())
		}
		slices.Sort(got)
		return g.GetConnected() && g.GetProcessId() == owner.claim.Process && slices.Equal(got, want)
	})
}

// revisionOf returns the current revision of etcd.
func revisionOf(t *testing.T, c *etcdtest.Cluster) int64 {
	t.Helper()
	resp, err := c.Client().Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.GetRevision()
}

// claims returns the claims of an ID since a revision of etcd. A claim that ended is "".
func claims(t *testing.T, c *etcdtest.Cluster, id string, since int64) (all []string) {
	t.Helper()
	client := c.Client()
	if _, err := client.Put(t.Context(), "end", ""); err != nil {
		t.Fatal(err)
	}
	for resp := range client.Watch(t.Context(), "", clientv3.WithPrefix(), clientv3.WithRev(since+1)) {
		for _, e := range resp.Events {
			switch string(e.Kv.Key) {
			case "/drawbridge/alive/" + id:
				all = append(all, string(e.Kv.Value))
			case "end":
				return all
			}
		}
	}
	t.Fatal("the watch ended")
	return nil
}

// ofProcesses reports whether claims are those of processes, in this order.
func ofProcesses(claims []string, processes ...*runner) bool {
	return slices.EqualFunc(claims, processes, func(claim string, r *runner) bool { return strings.Contains(claim, r.claim.Process) })
}

func TestASecondGatewayWithTheSameIDIsReported(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	first := run(t, c, "x", "")
	owns(t, first, first)
	since := revisionOf(t, c)
	second := run(t, c, "x", "")
	owns(t, first, first, second)
	if s := second.Status(); !strings.Contains(s.Duplicate, `another gateway uses the ID "x"`) {
		t.Errorf("the status of the second gateway: %+v", s)
	}
	if s := first.Status(); s.Duplicate != "" {
		t.Errorf("the status of the first gateway: %+v", s)
	}
	if got := second.events(Duplicate); len(got) != 1 || got[0] != second.Status().Duplicate {
		t.Errorf("events: %q", got)
	}
	// Both serve, follow and take writes.
	for i, g := range []*runner{second, first} {
		if err := g.put("u", i); err != nil {
			t.Fatal(err)
		}
		at(t, int64(i+1), first, second)
	}
	await(t, "the first gateway reports the revision", func() bool { return listed(t, second, "x").GetRevision() == 2 })
	if got := claims(t, c, "x", since); len(got) > 0 {
		t.Errorf("the gateways fight: %q", got)
	}
	first.stop()
	owns(t, second, second)
	await(t, "the second gateway no longer reports a duplicate", func() bool { return second.Status().Duplicate == "" })
}

func TestAClonedDataDirectoryIsReported(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	original := run(t, c, "x", "")
	owns(t, original, original)
	original.stop()
	clone := filepath.Join(t.TempDir(), "clone")
	if err := os.CopyFS(clone, os.DirFS(original.dir)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{clone, filepath.Join(clone, "state.db")} {
		mode := os.FileMode(0o600)
		if name == clone {
			mode = 0o700
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	first := run(t, c, "x", original.dir)
	owns(t, first, first)
	since := revisionOf(t, c)
	second := run(t, c, "x", clone)
	owns(t, first, second, first)
	if s := first.Status(); !strings.Contains(s.Duplicate, `a process with a copy of this data directory uses the ID "x"`) || second.Status().Duplicate != "" {
		t.Errorf("%+v", s)
	}
	if err := first.put("u", 1); err != nil {
		t.Fatal(err)
	}
	at(t, 1, first, second)
	await(t, "the second gateway reports the revision", func() bool { return listed(t, first, "x").GetRevision() == 1 })
	if got := claims(t, c, "x", since); !ofProcesses(got, second) {
		t.Errorf("the gateways fight: %q", got)
	}
	second.stop()
	owns(t, first, first)
}

// A machine that is cloned while its gateway runs has two processes with the same claim and lease.
// One of them notices the reports of the other one, and gives up the claim.
func TestACloneOfARunningProcessIsReported(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	other := run(t, c, "other", "")
	g := run(t, c, "x", "")
	owns(t, other, g)
	since := revisionOf(t, c)
	client := c.Client()
	const key = "/drawbridge/gateway/x"
	now, err := client.Get(t.Context(), key)
	if err != nil || len(now.Kvs) != 1 {
		t.Fatal(now, err)
	}
	if _, err := client.Put(t.Context(), key, string(now.Kvs[0].Value)); err != nil { // by the clone
		t.Fatal(err)
	}
	before := listed(t, other, "x").GetProcessId()
	if err := other.put("u", 1); err != nil {
		t.Fatal(err)
	}
	await(t, "the gateway reports the clone", func() bool { return len(g.events(Duplicate)) == 1 })
	await(t, "the gateway is listed as a duplicate", func() bool {
		now := listed(t, other, "x")
		return now.GetConnected() && now.GetProcessId() == before && len(now.GetDuplicates()) == 1 && now.GetDuplicates()[0].GetProcessId() != before
	})
	at(t, 1, g)
	if got := claims(t, c, "x", since); len(got) > 0 {
		t.Errorf("the claim of the clone was changed: %q", got)
	}
}

// The ID of a gateway has an owner at every moment of an upgrade, whichever process is slower,
// and even if the new process dies.
func TestAnUpgradeIsNoDuplicate(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	old := run(t, c, "x", "")
	other := run(t, c, "other", "")
	owns(t, other, old)
	since := revisionOf(t, c)
	lend := func(g *runner) {
		t.Helper()
		if err := g.Lend(); err != nil {
			t.Fatal(err)
		}
	}
	lend(old)
	failed, kill := runToKill(t, c, "x", old.dir)
	owns(t, other, failed)
	kill()
	if err := old.Reclaim(); err != nil {
		t.Fatal(err)
	}
	owns(t, other, old)
	lend(old)
	next := run(t, c, "x", old.dir)
	owns(t, other, next)
	old.stop()
	lend(next)
	next.stop() // before the last process starts
	last := run(t, c, "x", old.dir)
	owns(t, other, last)
	if got := claims(t, c, "x", since); !ofProcesses(got, failed, old, next, last) {
		t.Errorf("claims: %q", got)
	}
	for _, g := range []*runner{old, failed, next, last} {
		if got := g.events(Duplicate); len(got) > 0 || g.Status().Duplicate != "" {
			t.Errorf("%s reports a duplicate: %q", g.claim.Process, got)
		}
	}
}

func TestAKilledGatewayHasItsIDAtOnceWhenItRestarts(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	killed, kill := runToKill(t, c, "x", "")
	owns(t, killed, killed)
	since := revisionOf(t, c)
	kill() // its lease ends after the test
	again := run(t, c, "x", killed.dir)
	owns(t, again, again)
	if got := claims(t, c, "x", since); !ofProcesses(got, again) || len(again.events(Duplicate)) > 0 {
		t.Errorf("claims: %q", got)
	}
}

func TestAGatewayWhoseLeaseExpiredClaimsItsIDAgain(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	proxy := etcdtest.NewProxy(t, c.Endpoints()[0])
	other := run(t, c, "other", "")
	dir := filepath.Join(t.TempDir(), "data")
	cut := start(t, joinThrough(t, []string{proxy.Address()}, "x", dir, 2*time.Second), dir)
	owns(t, other, cut)
	since := revisionOf(t, c)
	proxy.Silence()
	await(t, "the lease expires", func() bool { g := listed(t, other, "x"); return g != nil && !g.GetConnected() })
	proxy.Heal()
	owns(t, other, cut)
	got := claims(t, c, "x", since)
	if !slices.Contains(got, "") || !ofProcesses(got[len(got)-1:], cut) || len(cut.events(Duplicate)) > 0 {
		t.Errorf("claims: %q", got)
	}
}

// etcd without space refuses reports, but not the renewal of leases.
func TestAGatewayStaysConnectedWhileEtcdHasNoSpace(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	g := run(t, c, "x", "")
	owns(t, g, g)
	since := revisionOf(t, c)
	c.UseUpQuota()
	g.address.Store("new")
	g.Changed()
	await(t, "a report is refused", func() bool { return strings.Contains(g.logged.String(), "database space exceeded") })
	if err := g.put("u", 1); !errors.Is(err, etcd.ErrNoSpace) || len(g.events(Disconnected)) > 0 {
		t.Errorf("a write: %v; events: %q", err, g.events(Disconnected))
	}
	c.RestoreQuota()
	await(t, "the gateway reports its address", func() bool { return listed(t, g, "x").GetAddress() == "new" })
	if got := claims(t, c, "x", since); len(got) > 0 {
		t.Errorf("the gateway did not stay connected: %q", got)
	}
}
