package admin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A testFleet is a fleet whose gateways a test sets.
type testFleet struct {
	mu      sync.Mutex
	all     []*adminv1.Gateway
	head    int64
	fault   error
	changed chan struct{} // closed and replaced at each change
	watched chan struct{} // holds a value once a watcher has the gateways or the fault
}

func newTestFleet(head int64, all ...*adminv1.Gateway) *testFleet {
	return &testFleet{all: all, head: head, changed: make(chan struct{}), watched: make(chan struct{}, 1)}
}

func (f *testFleet) set(head int64, fault error, all ...*adminv1.Gateway) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all, f.head, f.fault = all, head, fault
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *testFleet) Gateways(context.Context) ([]*adminv1.Gateway, int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all, f.head, f.fault
}

func (f *testFleet) ID() string { return "a" }

func (f *testFleet) AwaitRollout(context.Context, int64) (*adminv1.RolloutStatus, error) {
	return nil, errors.New("the test fleet has no rollouts")
}

func (f *testFleet) WatchGateways(ctx context.Context, changed func([]*adminv1.Gateway, int64) error) error {
	for {
		f.mu.Lock()
		all, head, fault, next := f.all, f.head, f.fault, f.changed
		f.mu.Unlock()
		err := fault
		if err == nil {
			err = changed(all, head)
		}
		select {
		case f.watched <- struct{}{}:
		default:
		}
		if err != nil {
			return err
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestGatewaysOfAFleetAreListedInPages(t *testing.T) {
	fleet := newTestFleet(9, &adminv1.Gateway{GatewayId: "a"}, &adminv1.Gateway{GatewayId: "b"}, &adminv1.Gateway{GatewayId: "c"})
	r := start(t, func(o *Options) { o.Fleet = fleet })
	c := adminv1.NewFleetServiceClient(r.conn)
	first, err := c.ListGateways(t.Context(), &adminv1.ListGatewaysRequest{PageSize: 2})
	if err != nil || len(first.GetGateways()) != 2 || first.GetHeadRevision() != 9 || first.GetNextPageToken() == "" {
		t.Fatalf("%v, %v", first, err)
	}
	last, err := c.ListGateways(t.Context(), &adminv1.ListGatewaysRequest{PageSize: 2, PageToken: first.GetNextPageToken()})
	if err != nil || len(last.GetGateways()) != 1 || last.GetGateways()[0].GetGatewayId() != "c" || last.GetNextPageToken() != "" {
		t.Errorf("%v, %v", last, err)
	}
	if _, err := c.ListGateways(t.Context(), &adminv1.ListGatewaysRequest{PageToken: "x"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a wrong token: %v", err)
	}
	fleet.set(9, errors.New("no quorum"))
	if _, err := c.ListGateways(t.Context(), &adminv1.ListGatewaysRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("without etcd: %v", err)
	}
}

func TestAGatewayWithoutAFleetSaysSo(t *testing.T) {
	r := start(t)
	c := adminv1.NewFleetServiceClient(r.conn)
	if _, err := c.ListGateways(t.Context(), &adminv1.ListGatewaysRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("%v", err)
	}
	stream, err := c.WatchGateways(t.Context(), &adminv1.WatchGatewaysRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("%v", err)
	}
}

func TestAWatchOfGatewaysSendsTheListAndThenItsChanges(t *testing.T) {
	named := func(id string, revision, lag int64) *adminv1.Gateway {
		return &adminv1.Gateway{GatewayId: id, Revision: revision, Lag: lag}
	}
	fleet := newTestFleet(1, named("a", 1, 0), named("b", 1, 0))
	r := start(t, func(o *Options) { o.Fleet = fleet })
	stream, err := adminv1.NewFleetServiceClient(r.conn).WatchGateways(t.Context(), &adminv1.WatchGatewaysRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want *adminv1.WatchGatewaysResponse) {
		t.Helper()
		if got, err := stream.Recv(); err != nil || !proto.Equal(got, want) {
			t.Errorf("%v, %v\nwant %v", got, err, want)
		}
	}
	expect(&adminv1.WatchGatewaysResponse{Gateways: []*adminv1.Gateway{named("a", 1, 0), named("b", 1, 0)}, HeadRevision: 1, Synced: true})
	fleet.set(2, nil, named("a", 2, 0), named("b", 1, 1)) // only the lag of b has changed
	expect(&adminv1.WatchGatewaysResponse{Gateways: []*adminv1.Gateway{named("a", 2, 0)}, HeadRevision: 2, Synced: true})
	fleet.set(2, nil, named("a", 2, 0), named("b", 1, 1)) // nothing has changed: no message
	fleet.set(2, nil, named("a", 2, 0))
	expect(&adminv1.WatchGatewaysResponse{Removed: []string{"b"}, HeadRevision: 2, Synced: true})
	fleet.set(2, errors.New("no quorum"))
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no quorum") {
		t.Errorf("without etcd: %v", err)
	}
}

func TestALongListOfGatewaysIsSentInParts(t *testing.T) {
	var list gatewayList
	var all []*adminv1.Gateway
	for i := range 3000 {
		all = append(all, &adminv1.Gateway{GatewayId: fmt.Sprint("gateway-", 10000+i), Address: strings.Repeat("x", 1000)})
	}
	seen := 0
	parts := list.update(all, 1)
	for i, p := range parts {
		seen += len(p.GetGateways())
		if proto.Size(p) > 3<<20 || p.GetSynced() != (i == len(parts)-1) {
			t.Errorf("part %d has %d bytes, synced %v", i, proto.Size(p), p.GetSynced())
		}
	}
	if seen != len(all) || len(parts) < 3 {
		t.Errorf("%d gateways in %d parts", seen, len(parts))
	}
	if again := list.update(all, 1); len(again) != 0 {
		t.Errorf("nothing has changed: %v", again)
	}
}

// putAndWait makes a write that waits for the fleet. The channel gets its change.
func (r *running) putAndWait(t *testing.T) <-chan *adminv1.Change {
	answered := make(chan *adminv1.Change, 1)
	go func() {
		res, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: upstream("u"), Options: &adminv1.WriteOptions{
			WaitFor: &adminv1.WaitFor{Target: adminv1.WaitTarget_WAIT_TARGET_FLEET, Timeout: durationpb.New(10 * time.Minute)}}})
		if err != nil {
			t.Error(err)
		}
		answered <- res.GetChange()
	}()
	return answered
}

func TestAWriteWaitsForTheFleet(t *testing.T) {
	const wanted = 1
	at := func(id string, revision int64, connected bool, problems ...*adminv1.Problem) *adminv1.Gateway {
		return &adminv1.Gateway{GatewayId: id, Revision: revision, Connected: connected, Problems: problems, ProblemCount: int32(len(problems))}
	}
	problem := &adminv1.Problem{Kind: adminv1.Kind_KIND_LISTENER, Name: "web", Reason: "the port is taken"}
	stuck := at("stuck", 0, true)
	stuck.Error = "no memory"
	for _, c := range []struct {
		name   string
		fault  error
		fleet  []*adminv1.Gateway // after the write
		states []adminv1.GatewayState
		reason string // in the last outcome, or in the warning
		waits  bool   // until the test stops the server
	}{
		{"all gateways follow", nil, []*adminv1.Gateway{at("a", wanted, true), at("b", wanted+1, true)}, []adminv1.GatewayState{adminv1.GatewayState_GATEWAY_STATE_LIVE, adminv1.GatewayState_GATEWAY_STATE_LIVE}, "", false},
		{"a gateway is disconnected", nil, []*adminv1.Gateway{at("a", wanted, true), at("gone", 0, false)}, []adminv1.GatewayState{adminv1.GatewayState_GATEWAY_STATE_LIVE, adminv1.GatewayState_GATEWAY_STATE_DISCONNECTED}, "not connected to etcd since", false},
		{"resources are down", nil, []*adminv1.Gateway{at("a", wanted, true, problem)}, []adminv1.GatewayState{adminv1.GatewayState_GATEWAY_STATE_DEGRADED}, "the port is taken", false},
		{"a gateway cannot follow", nil, []*adminv1.Gateway{stuck}, []adminv1.GatewayState{adminv1.GatewayState_GATEWAY_STATE_BEHIND}, "no memory", true},
		{"etcd does not answer", errors.New("no quorum"), nil, nil, "no quorum", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fleet := newTestFleet(0, at("a", 0, true), at("b", 0, true))
			if c.waits {
				fleet.set(wanted, c.fault, c.fleet...)
			}
			r := start(t, func(o *Options) { o.Fleet = fleet })
			answered := r.putAndWait(t)
			<-fleet.watched
			if c.waits {
				go r.Shutdown(context.Background())
			} else {
				fleet.set(wanted, c.fault, c.fleet...)
			}
			change := <-answered
			var states []adminv1.GatewayState
			reason := ""
			for _, g := range change.GetGateways() {
				states, reason = append(states, g.GetState()), g.GetMessage()
			}
			for _, w := range change.GetWarnings() {
				if w.GetCode() == adminv1.WarningCode_WARNING_CODE_FLEET_UNREACHABLE {
					reason = w.GetMessage()
				}
			}
			if change.GetRevision() != wanted || !slices.Equal(states, c.states) || !strings.Contains(reason, c.reason) {
				t.Errorf("%v", change)
			}
		})
	}
}

// A gateway that has just started may not be in the list yet when it takes a write.
func TestAWaitIncludesTheGatewayThatTookTheWrite(t *testing.T) {
	own, other := &adminv1.Gateway{GatewayId: "a", Revision: 1, Connected: true}, &adminv1.Gateway{GatewayId: "b", Revision: 1, Connected: true}
	fleet := newTestFleet(1, other)
	r := start(t, func(o *Options) { o.Fleet = fleet })
	answered := r.putAndWait(t)
	<-fleet.watched
	fleet.set(1, nil, own, other)
	if change := <-answered; len(change.GetGateways()) != 2 || len(change.GetWarnings()) != 0 {
		t.Errorf("%v", change)
	}
}

func TestAWaitEndsAtItsTimeout(t *testing.T) {
	r := start(t, func(o *Options) { o.Fleet = newTestFleet(0, &adminv1.Gateway{GatewayId: "stuck", Connected: true}) })
	res, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: upstream("u"), Options: &adminv1.WriteOptions{
		WaitFor: &adminv1.WaitFor{Target: adminv1.WaitTarget_WAIT_TARGET_FLEET, Timeout: durationpb.New(time.Second)}}})
	if err != nil || res.GetChange().GetRevision() != 1 {
		t.Fatalf("%v, %v", res, err)
	}
	for _, g := range res.GetChange().GetGateways() { // there are no gateways if the timeout passed before the first read
		if g.GetState() != adminv1.GatewayState_GATEWAY_STATE_BEHIND {
			t.Errorf("%v", g)
		}
	}
}

func TestAWaitThatMakesNoSenseIsRefused(t *testing.T) {
	alone, member := start(t), start(t, func(o *Options) { o.Fleet = newTestFleet(0) })
	put := func(r *running, dry bool, w *adminv1.WaitFor) error {
		_, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: upstream("u"), Options: &adminv1.WriteOptions{DryRun: dry, WaitFor: w}})
		return err
	}
	const target = adminv1.WaitTarget_WAIT_TARGET_FLEET
	for name, err := range map[string]error{
		"without a fleet": put(alone, false, &adminv1.WaitFor{Target: target}),
		"a dry run":       put(member, true, &adminv1.WaitFor{Target: target}),
		"no target":       put(member, false, &adminv1.WaitFor{}),
		"too long":        put(member, false, &adminv1.WaitFor{Target: target, Timeout: durationpb.New(time.Hour)}),
	} {
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "options.wait_for") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := alone.gateway.State().Revision() + member.gateway.State().Revision(); n != 0 {
		t.Errorf("%d writes were made", n)
	}
}

func TestARolloutThatMakesNoSenseIsRefused(t *testing.T) {
	alone, member := start(t), start(t, func(o *Options) { o.Fleet = newTestFleet(0) })
	put := func(r *running, change func(*adminv1.WriteOptions)) error {
		o := &adminv1.WriteOptions{Rollout: &adminv1.Rollout{Canaries: percent(10)}}
		change(o)
		_, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: upstream("u"), Options: o})
		return err
	}
	selected := func(selector string) func(*adminv1.WriteOptions) {
		return func(o *adminv1.WriteOptions) {
			o.Rollout.Canaries = &adminv1.Canaries{Gateways: &adminv1.Canaries_Selector{Selector: selector}}
		}
	}
	for name, err := range map[string]error{
		"without a fleet":          put(alone, func(*adminv1.WriteOptions) {}),
		"with confirm_within":      put(member, func(o *adminv1.WriteOptions) { o.ConfirmWithin = durationpb.New(time.Minute) }),
		"without canaries":         put(member, func(o *adminv1.WriteOptions) { o.Rollout.Canaries = nil }),
		"no percent":               put(member, func(o *adminv1.WriteOptions) { o.Rollout.Canaries = percent(0) }),
		"more than 100 percent":    put(member, func(o *adminv1.WriteOptions) { o.Rollout.Canaries = percent(101) }),
		"an empty selector":        put(member, selected("")),
		"an invalid selector":      put(member, selected("zone>a")),
		"a hold that is too short": put(member, func(o *adminv1.WriteOptions) { o.Rollout.Hold = durationpb.New(time.Millisecond) }),
		"a rate above 1":           put(member, func(o *adminv1.WriteOptions) { o.Rollout.MaxFailureRate = new(1.5) }),
		"a rate that is no number": put(member, func(o *adminv1.WriteOptions) { o.Rollout.MaxFailureRate = new(math.NaN()) }),
	} {
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "options.rollout") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := alone.gateway.State().Revision() + member.gateway.State().Revision(); n != 0 {
		t.Errorf("%d writes were made", n)
	}
}

func percent(n int32) *adminv1.Canaries {
	return &adminv1.Canaries{Gateways: &adminv1.Canaries_Percent{Percent: n}}
}
