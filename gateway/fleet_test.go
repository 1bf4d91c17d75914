package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd/etcdtest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// inFleet makes a gateway a member of the fleet in a cluster.
func inFleet(t *testing.T, c *etcdtest.Cluster) func(*Options) {
	t.Helper()
	key, err := seal.ParseKey([]byte(strings.Repeat("a", 64)))
	if err != nil {
		t.Fatal(err)
	}
	return func(o *Options) {
		o.SealKey, o.Fleet = key, &Fleet{ID: rand.Text(), Etcd: etcd.Options{Endpoints: c.Endpoints(), Timeout: deadline, Alive: ages}, Poll: 200 * time.Millisecond}
	}
}

// converge waits until the gateways have the same state at a revision.
func converge(t *testing.T, revision int64, gateways ...*testGateway) {
	t.Helper()
	for i, g := range gateways {
		eventually(t, fmt.Sprintf("gateway %d is at revision %d", i, revision), func() bool { return g.State().Revision() == revision })
		g.settle()
		equal := func(x, y store.Resource) bool { return proto.Equal(x, y) }
		if !slices.EqualFunc(g.State().All(), gateways[0].State().All(), equal) {
			t.Fatalf("gateway %d has:\n%v\nand gateway 0:\n%v", i, g.State().All(), gateways[0].State().All())
		}
	}
}

func TestAWriteAtAnyGatewayIsLiveAtAll(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	a, b := start(t, "", inFleet(t, c)), start(t, "", inFleet(t, c))
	ca := certstest.NewCA(t)
	address := echo(t, ca, ca.Server(t, "up.example"))
	a.put(append(bridgeTo(t, ca, address), tcpListener("in", "127.0.0.1:0"))...)
	converge(t, 1, a, b)
	client := dial(t, b.address("in"))
	client.echo(t, "a connection through the gateway that followed")
	b.put(plainUpstream("other", "127.0.0.1:1"))
	converge(t, 2, a, b)
	client.echo(t, "an unrelated change keeps the connection")
	client.Close()
	late := start(t, "", inFleet(t, c))
	converge(t, 2, a, b, late)
	if late.InstanceID() != a.InstanceID() || late.InstanceID() == "" {
		t.Errorf("instance %q and %q", late.InstanceID(), a.InstanceID())
	}
	for name, g := range map[string]*testGateway{"writer": a, "follower": b, "latecomer": late} {
		if r, err := g.History().Revision(2); err != nil || r.GetChanges()[0].GetName() != "other" {
			t.Errorf("%s: %v, %v", name, r, err)
		}
		if e, err := g.RollbackEdit(1); err != nil || len(e.Deletes) != 1 {
			t.Errorf("%s: a rollback: %+v, %v", name, e, err)
		}
	}
	late.rollBack(1)
	converge(t, 3, a, b, late)
	eventually(t, "a follower announces every revision", func() bool { // after the last one is live
		updates, _, err := b.Updates(0)
		return err == nil && len(updates) == 3 && updates[2].Revision == 3 && updates[1].Resources[0].GetName() == "other"
	})
	// A restart begins with the copy, and follows what it missed.
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	a.put(plainUpstream("other", "127.0.0.1:2"))
	again := start(t, b.dir, inFleet(t, c))
	converge(t, 4, a, again, late)
}

func TestTheGatewaysOfAFleetAreListed(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	named := func(id string) func(*Options) {
		join := inFleet(t, c)
		return func(o *Options) {
			join(o)
			o.Fleet.ID, o.Fleet.Labels = id, map[string]string{"zone": id}
		}
	}
	a, b := start(t, "", named("a")), start(t, "", named("b"))
	list := func(g *testGateway) map[string]*adminv1.Gateway {
		all, _, err := g.fleet.Gateways(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]*adminv1.Gateway{}
		for _, one := range all {
			out[one.GetGatewayId()] = one
		}
		return out
	}
	a.put(plainUpstream("u", "127.0.0.1:1"))
	for _, g := range []*testGateway{a, b} {
		eventually(t, "both are listed at the head", func() bool {
			all := list(g)
			return len(all) == 2 && all["a"].GetRevision() == 1 && all["b"].GetRevision() == 1 && all["a"].GetConnected() && all["b"].GetConnected()
		})
	}
	if got := list(b)["a"]; got.GetLabels()["zone"] != "a" || got.GetVersion() != "test" || got.GetLag() != 0 || got.GetAddress() != a.AdminAddress() || got.GetLastSeenTime() == nil {
		t.Errorf("%v", got)
	}
	// A gateway that cannot make a part of a revision live says so.
	a.put(plainUpstream("up", "127.0.0.1:1"), tcpListener("fixed", sockettest.Free(t)))
	eventually(t, "the gateway with the problem reports it", func() bool {
		got := list(a)["b"]
		return got.GetRevision() == 2 && got.GetProblemCount() == 1 && got.GetProblems()[0].GetName() == "fixed"
	})
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if got := list(a)["b"]; got.GetConnected() || got.GetRevision() != 2 {
		t.Errorf("a gateway that has stopped: %v", got)
	}
	a.put(plainUpstream("v", "127.0.0.1:1"))
	if got := list(a)["b"]; got.GetLag() != 1 {
		t.Errorf("lag of a gateway that has stopped: %v", got)
	}
}

func TestAGatewayWhoseIDIsTakenWarns(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	first := start(t, "", zoned(t, c, "a"))
	eventually(t, "the first gateway has the ID", func() bool {
		all, _, err := first.fleet.Gateways(t.Context())
		return err == nil && len(all) == 1 && all[0].GetConnected()
	})
	second := start(t, "", zoned(t, c, "a"))
	eventually(t, "the second gateway warns", func() bool {
		s := second.Status()
		return s.GetFleet().GetDuplicateId() != "" && slices.ContainsFunc(s.GetWarnings(), func(w *adminv1.Warning) bool {
			return w.GetCode() == adminv1.WarningCode_WARNING_CODE_FLEET_DUPLICATE_ID && w.GetMessage() == s.GetFleet().GetDuplicateId()
		})
	})
	before, _ := second.EventBounds()
	events, _, err := second.Events(before)
	if err != nil || !slices.ContainsFunc(events, func(e *adminv1.Event) bool { return e.GetType() == adminv1.EventType_EVENT_TYPE_FLEET_DUPLICATE_ID }) {
		t.Errorf("%v, %v", events, err)
	}
	for value, g := range map[int]*testGateway{0: first, 1: second} {
		if _, text := get(t, "http://"+g.OpsAddress()+"/metrics"); !strings.Contains(text, fmt.Sprintf("\ndrawbridge_fleet_duplicate_id %d\n", value)) {
			t.Errorf("/metrics has no duplicate_id %d:\n%s", value, text)
		}
	}
	if s := first.Status(); s.GetFleet().GetDuplicateId() != "" {
		t.Errorf("the first gateway warns: %v", s.GetFleet())
	}
}

// zoned makes a gateway a member of the fleet, with a label.
func zoned(t *testing.T, c *etcdtest.Cluster, zone string) func(*Options) {
	join := inFleet(t, c)
	return func(o *Options) {
		join(o)
		o.Fleet.ID, o.Fleet.Labels = "gateway-"+zone, map[string]string{"zone": zone}
	}
}

func TestResourcesApplyToTheGatewaysThatTheySelect(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	a, b := start(t, "", zoned(t, c, "a")), start(t, "", zoned(t, c, "b"))
	ca := certstest.NewCA(t)
	bridge := bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example")))
	in := tcpListener("in", "127.0.0.1:0")
	in.Gateways = "zone=b"
	result := a.put(append(bridge, in)...)
	if len(result.Warnings) != 1 || result.Warnings[0].Code != "OTHER_GATEWAYS" {
		t.Errorf("warnings of the gateway that took the write: %v", result.Warnings)
	}
	converge(t, 1, a, b)
	client := dial(t, b.address("in"))
	client.echo(t, "a connection through the selected gateway")
	if s := a.Status(); len(s.GetListeners()) != 0 || s.GetProblemCount() != 0 {
		t.Errorf("status of the other gateway: %v", s)
	}
	// A new selector moves the listener. The connections drain as for a removed listener.
	in = proto.Clone(in).(*adminv1.Listener)
	in.Gateways = "zone!=b"
	impact := b.apply(store.Edit{Puts: puts(in), Impact: true}).Impact
	if len(impact.GetListeners()) != 1 || impact.GetListeners()[0].GetConnectionsDrained() != 1 {
		t.Errorf("impact: %v", impact)
	}
	converge(t, 2, a, b)
	dial(t, a.address("in")).echo(t, "through the gateway that is selected now")
	client.echo(t, "the old connection until the drain timeout")
	if states := b.Status().GetListeners(); len(states) != 1 || states[0].GetState() != adminv1.ListenerState_LISTENER_STATE_DRAINING {
		t.Errorf("listeners of the gateway that is no longer selected: %v", states)
	}
}

func TestAWriteAnswersWhenTheFleetRunsIt(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	a, b := start(t, "", zoned(t, c, "a")), start(t, "", zoned(t, c, "b"))
	conn, err := grpc.NewClient(a.AdminAddress(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	states := func(change *adminv1.Change) string {
		var out []string
		for _, g := range change.GetGateways() {
			out = append(out, fmt.Sprint(g.GetGatewayId(), " ", g.GetState(), " ", g.GetRevision()))
		}
		return strings.Join(out, ", ")
	}
	apply := func(rs ...store.Resource) *adminv1.Change {
		t.Helper()
		req := &adminv1.ApplyRequest{Options: &adminv1.WriteOptions{WaitFor: &adminv1.WaitFor{Target: adminv1.WaitTarget_WAIT_TARGET_FLEET, Timeout: durationpb.New(deadline)}}}
		for _, r := range rs {
			req.Resources = append(req.Resources, store.Wrap(r))
		}
		answer, err := adminv1.NewAdminServiceClient(conn).Apply(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetChange()
	}
	list := func() map[string]*adminv1.Gateway {
		all, _, err := a.fleet.Gateways(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]*adminv1.Gateway{}
		for _, g := range all {
			out[g.GetGatewayId()] = g
		}
		return out
	}
	eventually(t, "both gateways are listed", func() bool { return list()["gateway-a"].GetConnected() && list()["gateway-b"].GetConnected() })
	if got := states(apply(plainUpstream("up", "127.0.0.1:1"))); got != "gateway-a GATEWAY_STATE_LIVE 1, gateway-b GATEWAY_STATE_LIVE 1" {
		t.Errorf("%s", got)
	}
	if n := b.State().Revision(); n != 1 {
		t.Errorf("the other gateway is at revision %d", n)
	}
	// The answer shows the state of sockets too: one of the gateways cannot bind the
	// address.
	fixed := tcpListener("fixed", sockettest.Free(t))
	change := apply(fixed)
	if got := states(change); got != "gateway-a GATEWAY_STATE_LIVE 2, gateway-b GATEWAY_STATE_DEGRADED 2" || !strings.Contains(change.GetGateways()[1].GetMessage(), "fixed") {
		t.Errorf("%s: %v", got, change.GetGateways())
	}
	// No write waits for a gateway that has stopped.
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if got := states(apply(plainUpstream("up", "127.0.0.1:2"))); got != "gateway-a GATEWAY_STATE_LIVE 3, gateway-b GATEWAY_STATE_DISCONNECTED 2" {
		t.Errorf("%s", got)
	}
}

func TestGatewaysThatRaceLoseNoWrite(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	gateways := []*testGateway{start(t, "", inFleet(t, c)), start(t, "", inFleet(t, c)), start(t, "", inFleet(t, c))}
	const each = 15
	var writers sync.WaitGroup
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	aborted := 0
	for i, g := range gateways {
		writers.Go(func() {
			for n := range each {
				name := fmt.Sprintf("u%d-%d", i, n)
				_, err := g.Apply(t.Context(), store.Edit{Puts: puts(plainUpstream(name, "127.0.0.1:1"))})
				var bad *invalid.Error
				mu.Lock()
				switch {
				case err == nil:
					acknowledged[name] = true
				case errors.As(err, &bad) && bad.Worst() == invalid.Conflict:
					aborted++
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	writers.Wait()
	converge(t, int64(len(acknowledged)), gateways...)
	for name := range acknowledged {
		if gateways[0].State().Get(adminv1.Kind_KIND_UPSTREAM, name) == nil {
			t.Errorf("%s was acknowledged and is lost", name)
		}
	}
	t.Logf("%d acknowledged, %d aborted", len(acknowledged), aborted)
	// A write that names a revision fails if that revision is stale, whichever
	// gateway takes the write.
	at := gateways[0].State().Revision()
	results := make([]error, 2)
	for i := range results {
		writers.Go(func() {
			_, results[i] = gateways[i].Apply(t.Context(), store.Edit{Puts: puts(plainUpstream(fmt.Sprint("last", i), "127.0.0.1:1")), ExpectedRevision: &at})
		})
	}
	writers.Wait()
	var bad *invalid.Error
	lost := errors.Join(results...)
	if (results[0] == nil) == (results[1] == nil) || !errors.As(lost, &bad) || bad.Worst() != invalid.Conflict {
		t.Errorf("%v", results)
	}
}

func unavailable(err error) bool {
	var bad *invalid.Error
	return errors.As(err, &bad) && bad.Worst() == invalid.Unavailable
}

func TestAGatewayServesItsCopyWithoutEtcd(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	a := start(t, "", inFleet(t, c))
	ca := certstest.NewCA(t)
	a.put(append(bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example"))), tcpListener("in", "127.0.0.1:0"))...)
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	c.Kill(0)
	impatient := func(o *Options) { inFleet(t, c)(o); o.Fleet.Etcd.Timeout = time.Second }
	b := start(t, a.dir, impatient)
	client := dial(t, b.address("in"))
	client.echo(t, "without etcd")
	client.Close()
	_, err := b.Apply(t.Context(), store.Edit{Puts: puts(plainUpstream("new", "127.0.0.1:1"))})
	if !unavailable(err) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("a write without etcd: %v", err)
	}
	if s := b.fleet.Status(); s.Unreachable == "" || !s.Contacted.IsZero() || s.Copy != 1 || s.Diverged != "" {
		t.Errorf("%+v", s)
	}
	fresh := start(t, "", impatient)
	c.Run(0)
	c.Await()
	converge(t, 1, b, fresh)
	eventually(t, "writes work again", func() bool {
		_, err := b.Apply(t.Context(), store.Edit{Puts: puts(plainUpstream("new", "127.0.0.1:1"))})
		return err == nil
	})
	converge(t, 2, b, fresh)
	eventually(t, "the status says so", func() bool { // on a busy machine, a read may take longer than the timeout
		s := b.fleet.Status()
		return s.Unreachable == "" && s.Head == 2 && s.Copy == 2
	})
	c.Kill(0)
	eventually(t, "events say when etcd answered and when not", func() bool {
		before, _ := b.EventBounds()
		events, _, err := b.Events(before)
		var got []adminv1.EventType
		for _, e := range events {
			if e.GetType() == adminv1.EventType_EVENT_TYPE_FLEET_CONNECTED || e.GetType() == adminv1.EventType_EVENT_TYPE_FLEET_DISCONNECTED {
				got = append(got, e.GetType())
			}
		}
		up, down := adminv1.EventType_EVENT_TYPE_FLEET_CONNECTED, adminv1.EventType_EVENT_TYPE_FLEET_DISCONNECTED
		return err == nil && len(got) > 2 && got[0] == down && slices.Contains(got, up) && got[len(got)-1] == down
	})
	// Without the fleet, the copy must not become a history of its own.
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	o := Options{DataDir: a.dir, AdminSocket: filepath.Join(shortDir(t), "admin.sock")}
	inFleet(t, c)(&o)
	o.Fleet = nil
	if g, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--store etcd") {
		t.Errorf("opened without its fleet: %v", err)
		if g != nil {
			g.Close()
		}
	}
}

func TestAConfirmationIsOfTheWholeFleet(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	a, b := start(t, "", inFleet(t, c)), start(t, "", inFleet(t, c))
	a.put(plainUpstream("u", "127.0.0.1:1"))
	a.apply(store.Edit{Puts: puts(plainUpstream("u", "127.0.0.1:2")), ConfirmWithin: ages})
	converge(t, 2, a, b)
	eventually(t, "the follower has it pending", func() bool { return b.Status().GetPending().GetRevision() == 2 })
	if _, err := b.Apply(t.Context(), store.Edit{Puts: puts(plainUpstream("v", "127.0.0.1:1"))}); !isPending(err) {
		t.Errorf("a write while a revision is pending: %v", err)
	}
	if err := b.tryConfirm(2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gateway that took the write shows the confirmation", func() bool { return a.Status().GetPending() == nil })
	if r, err := a.History().Revision(2); err != nil || r.GetConfirmPrincipal() != "uid:9" {
		t.Errorf("%v, %v", r, err)
	}
	late := start(t, "", inFleet(t, c))
	converge(t, 2, a, b, late)
	if r, err := late.History().Revision(2); err != nil || r.GetConfirmPrincipal() != "uid:9" || late.Status().GetPending() != nil {
		t.Errorf("a gateway that joined later: %v, %v", r, err)
	}
	// The gateway that took the write stops, and the others roll back.
	a.apply(store.Edit{Puts: puts(plainUpstream("u", "127.0.0.1:3")), ConfirmWithin: 2 * time.Second})
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	converge(t, 4, b, late)
	if r, err := late.History().Revision(4); err != nil || r.GetMethod() != byDeadline || r.GetRollbackTo() != 2 {
		t.Errorf("%v, %v", r, err)
	}
	again := start(t, a.dir, inFleet(t, c))
	converge(t, 4, b, late, again)
	if p := again.Status().GetPending(); p != nil {
		t.Errorf("pending: %v", p)
	}
}

func TestAGatewayThatCannotBindServesTheRest(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	a, b := start(t, "", inFleet(t, c)), start(t, "", inFleet(t, c))
	ca := certstest.NewCA(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca.TrustPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	// Both are on one machine: the second cannot bind the port of the first.
	a.put(append(bridgeTo(t, ca, echo(t, ca, ca.Server(t, "up.example"))), tcpListener("fixed", sockettest.Free(t)), tcpListener("in", "127.0.0.1:0"))...)
	converge(t, 1, a, b)
	dial(t, b.address("in")).echo(t, "the other resources are live")
	if got := b.listener("fixed"); got.GetState() != adminv1.ListenerState_LISTENER_STATE_DOWN {
		t.Errorf("%v", got)
	}
	a.apply(store.Edit{Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_LISTENER, Name: "fixed"}}})
	converge(t, 2, a, b)
	if problems := b.Status().GetProblems(); len(problems) > 0 {
		t.Errorf("%v", problems)
	}
}

func TestAWipedEtcdIsNotFollowed(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	a := start(t, "", inFleet(t, c))
	a.put(plainUpstream("u", "127.0.0.1:1"))
	c.Wipe()
	c.Run(0)
	c.Await()
	eventually(t, "the gateway detects the wiped etcd", func() bool { return strings.Contains(a.fleet.Status().Diverged, "no longer holds the fleet") })
	// Another gateway makes a new fleet there.
	b := start(t, "", inFleet(t, c))
	b.put(plainUpstream("other", "127.0.0.1:1"))
	eventually(t, "the gateway detects the other fleet", func() bool { return strings.Contains(a.fleet.Status().Diverged, "another fleet") })
	if _, err := a.Apply(t.Context(), store.Edit{Puts: puts(plainUpstream("v", "127.0.0.1:1"))}); !unavailable(err) || !strings.Contains(err.Error(), "another fleet") {
		t.Errorf("a write: %v", err)
	}
	if a.State().Get(adminv1.Kind_KIND_UPSTREAM, "u") == nil || a.State().Revision() != 1 {
		t.Error("the gateway lost its state")
	}
	// The gateway follows once its copy is removed.
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(a.dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	converge(t, 1, b, start(t, a.dir, inFleet(t, c)))
}

// A gateway whose history is not that of etcd does not count as a gateway of the fleet, even
// if its lease survived: no write waits for it, and no rollout compares canaries with it.
func TestAGatewayThatDoesNotFollowIsNotConnected(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	a := start(t, "", zoned(t, c, "a"))
	a.put(plainUpstream("u", "127.0.0.1:1"))
	client := c.Client()
	alive := func() bool {
		keys, err := client.Get(t.Context(), "", clientv3.WithFromKey(), clientv3.WithKeysOnly())
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(keys.Kvs, func(kv *mvccpb.KeyValue) bool { return strings.HasSuffix(string(kv.Key), "alive/gateway-a") })
	}
	eventually(t, "the gateway is connected", alive)
	keys, err := client.Get(t.Context(), "", clientv3.WithFromKey(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range keys.Kvs {
		if kv.Lease == 0 {
			if _, err := client.Delete(t.Context(), string(kv.Key)); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "the gateway detects the loss", func() bool { return a.fleet.Status().Diverged != "" })
	eventually(t, "the gateway leaves", func() bool { return !alive() })
}

func TestFilesBelongToOneGateway(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	a, b := start(t, "", inFleet(t, c)), start(t, "", inFleet(t, c))
	first, second := certstest.NewCA(t), certstest.NewCA(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	write := func(ca *certstest.CA) {
		if err := os.WriteFile(file+".new", ca.TrustPEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write(first)
	a.put(&adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_File{File: file}})
	converge(t, 1, a, b)
	subject := func(g *testGateway) string {
		r := g.Present(g.State().Get(adminv1.Kind_KIND_TRUST_BUNDLE, "corp")).(*adminv1.TrustBundle)
		return r.GetInfo().String()
	}
	before := subject(a)
	write(second)
	for _, g := range []*testGateway{a, b} {
		eventually(t, "the gateway loads its file", func() bool { return subject(g) != before })
		if g.State().Revision() != 1 {
			t.Errorf("a file made revision %d", g.State().Revision())
		}
	}
	converge(t, 1, a, b)
}

func TestAGatewayWithAConfigurationDoesNotJoin(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	alone := start(t, "", func(o *Options) { inFleet(t, c)(o); o.Fleet = nil })
	alone.put(plainUpstream("u", "127.0.0.1:1"))
	if err := alone.stop(); err != nil {
		t.Fatal(err)
	}
	o := Options{DataDir: alone.dir, AdminSocket: filepath.Join(shortDir(t), "admin.sock")}
	inFleet(t, c)(&o)
	g, err := Open(context.Background(), o)
	if err == nil || !strings.Contains(err.Error(), "without a fleet") {
		t.Errorf("joined: %v", err)
	}
	if g != nil {
		g.Close()
	}
}
