package rollout

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const hold = time.Minute

// canary returns a canary that has run revision 2 for a time.
func canary(live time.Duration, now, before *adminv1.TrafficCounts) *adminv1.Gateway {
	return &adminv1.Gateway{GatewayId: "a", ProcessId: "1", Connected: true, Rollout: &adminv1.RolloutReport{
		Revision: 2, Live: true, Duration: durationpb.New(live), Traffic: now, TrafficBefore: before,
	}}
}

func other(now *adminv1.TrafficCounts) *adminv1.Gateway {
	return &adminv1.Gateway{GatewayId: "b", ProcessId: "2", Connected: true, Rollout: &adminv1.RolloutReport{Revision: 2, Traffic: now}}
}

func requests(failed, all int64) *adminv1.TrafficCounts {
	return &adminv1.TrafficCounts{Requests: all, RequestsFailed: failed, Failures: map[string]int64{"request 502": failed}}
}

func TestTheTrafficOfTheCanariesDecides(t *testing.T) {
	t.Parallel()
	none := &adminv1.TrafficCounts{}
	for name, c := range map[string]struct {
		live                time.Duration
		now, before, others *adminv1.TrafficCounts
		state               adminv1.RolloutState // 0: in progress
		message             string
	}{
		"no traffic":                                         {hold, none, none, none, adminv1.RolloutState_ROLLOUT_STATE_PROMOTED, "no traffic"},
		"no failures":                                        {hold, requests(0, 100), none, none, adminv1.RolloutState_ROLLOUT_STATE_PROMOTED, "requests 0 of 100"},
		"no failures, before the hold is over":               {hold - 1, requests(0, 100), none, none, 0, ""},
		"few failures":                                       {hold, requests(1, 100), none, none, adminv1.RolloutState_ROLLOUT_STATE_PROMOTED, "1 of 100 (1.00%)"},
		"more failures than before and elsewhere":            {hold, requests(20, 100), requests(0, 100), requests(0, 100), adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK, "20 of 100 (20.00%); before: 0 of 100 (0.00%); at the other gateways: 0 of 100 (0.00%); the limit is 1%; 502: 20"},
		"more failures, before the hold is over":             {1, requests(20, 100), requests(0, 100), none, adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK, "20 of 100"},
		"one failure, before the hold is over":               {1, requests(1, 1), none, none, 0, ""},
		"one failure, after the hold":                        {hold, requests(1, 1), none, none, adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK, "1 of 1"},
		"as many failures before":                            {hold, requests(20, 100), requests(190, 1000), none, adminv1.RolloutState_ROLLOUT_STATE_PROMOTED, "20 of 100"},
		"as many failures elsewhere":                         {hold, requests(20, 100), requests(0, 100), requests(190, 1000), adminv1.RolloutState_ROLLOUT_STATE_PROMOTED, "20 of 100"},
		"fewer failures before and elsewhere":                {hold, requests(50, 100), requests(190, 1000), requests(190, 1000), adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK, "50 of 100"},
		"failed dials among many requests that need no dial": {hold, &adminv1.TrafficCounts{Requests: 100000, Dials: 10, DialsFailed: 10, Failures: map[string]int64{"dial UNKNOWN_CA": 10}}, none, none, adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK, "dials of the canaries fail too often: 10 of 10"},
		"failed handshakes of clients":                       {hold, &adminv1.TrafficCounts{Connections: 10, ConnectionsFailed: 6, Failures: map[string]int64{"client NO_COMMON_CIPHER": 6}}, none, none, adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK, "6 of 10 (60.00%); before: none; at the other gateways: none; the limit is 1%; NO_COMMON_CIPHER: 6"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			got := judge(began).Decide([]*adminv1.Gateway{canary(c.live, c.now, c.before), other(c.others)}, began)
			if got.GetState() != c.state || !strings.Contains(got.GetMessage(), c.message) {
				t.Errorf("%v", got)
			}
			if got != nil && (got.GetEndTime() == nil || got.GetCanaryTraffic().GetRequests() != c.now.GetRequests() || got.GetOtherTraffic().GetRequests() != c.others.GetRequests() || got.GetTrafficBefore().GetRequests() != c.before.GetRequests()) {
				t.Errorf("evidence: %v", got)
			}
		})
	}
}

func judge(began time.Time) *Judge {
	return NewJudge(&adminv1.RolloutStatus{
		Revision: 2, Canaries: []*adminv1.Canary{{GatewayId: "a", ProcessId: "1"}}, Hold: durationpb.New(hold), MaxFailureRate: DefaultMaxFailureRate,
	}, began)
}

func TestACanaryThatIsLostOrDegradedEndsTheRollout(t *testing.T) {
	t.Parallel()
	good := func() *adminv1.Gateway { return canary(hold/2, nil, nil) }
	type step struct {
		after  time.Duration
		canary *adminv1.Gateway
		want   string // "": in progress
	}
	with := func(change func(*adminv1.Gateway)) *adminv1.Gateway {
		g := good()
		change(g)
		return g
	}
	disconnected := with(func(g *adminv1.Gateway) { g.Connected = false })
	behind := with(func(g *adminv1.Gateway) { g.Rollout, g.Error = nil, "a file is missing" })
	for name, steps := range map[string][]step{
		"restarted":       {{0, good(), ""}, {time.Second, with(func(g *adminv1.Gateway) { g.ProcessId = "9" }), "a has restarted"}},
		"lost":            {{0, disconnected, ""}, {lostAfter - 1, disconnected, ""}, {lostAfter, disconnected, "lost its connection"}},
		"removed":         {{0, nil, ""}, {lostAfter, nil, "lost its connection"}},
		"connects again":  {{0, disconnected, ""}, {lostAfter - 1, good(), ""}, {lostAfter, disconnected, ""}, {2*lostAfter - 1, disconnected, ""}},
		"does not follow": {{0, behind, ""}, {followWithin - 1, behind, ""}, {followWithin, behind, "a file is missing"}},
		"says nothing":    {{followWithin, with(func(g *adminv1.Gateway) { g.Rollout = nil }), "did not run the revision within 30s"}},
		"cannot bind a port": {{0, with(func(g *adminv1.Gateway) {
			g.Rollout.NewProblems = []*adminv1.Problem{{Kind: adminv1.Kind_KIND_LISTENER, Name: "in", Reason: "address in use"}}
		}), `listener "in" is down: address in use`}},
		"disconnected at the end of the hold": {{0, with(func(g *adminv1.Gateway) { g.Connected, g.Rollout.Duration = false, durationpb.New(hold) }), ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			j := judge(began)
			for i, s := range steps {
				all := []*adminv1.Gateway{other(nil)}
				if s.canary != nil {
					all = append(all, s.canary)
				}
				got := j.Decide(all, began.Add(s.after))
				if s.want == "" && got != nil || s.want != "" && (got.GetState() != adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK || !strings.Contains(got.GetMessage(), s.want)) {
					t.Errorf("step %d: %v", i, got)
				}
			}
		})
	}
}

func TestBeginChoosesConnectedGateways(t *testing.T) {
	t.Parallel()
	var all []*adminv1.Gateway
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		all = append(all, &adminv1.Gateway{GatewayId: id, ProcessId: "process-" + id, Labels: map[string]string{"zone": id}, Connected: id != "e"})
	}
	percent := func(n int32) *adminv1.Rollout {
		return &adminv1.Rollout{Canaries: &adminv1.Canaries{Gateways: &adminv1.Canaries_Percent{Percent: n}}}
	}
	for n, want := range map[int32]int{1: 1, 25: 1, 26: 2, 100: 4} {
		r, err := Begin(percent(n), all, 2, time.Now())
		if err != nil || len(r.GetCanaries()) != want || IsCanary(r, "e") {
			t.Errorf("%d percent: %v, %v", n, r, err)
		}
	}
	selector := &adminv1.Rollout{Canaries: &adminv1.Canaries{Gateways: &adminv1.Canaries_Selector{Selector: "zone in (b,e)"}}, MaxFailureRate: new(0.0)}
	r, err := Begin(selector, all, 2, time.Now())
	if err != nil || len(r.GetCanaries()) != 1 || r.GetCanaries()[0].GetProcessId() != "process-b" || !IsCanary(r, "b") || r.GetHold().AsDuration() != DefaultHold || r.GetMaxFailureRate() != 0 {
		t.Errorf("%v, %v", r, err)
	}
	selector.Canaries = &adminv1.Canaries{Gateways: &adminv1.Canaries_Selector{Selector: "zone=e"}}
	if r, err := Begin(selector, all, 2, time.Now()); err != ErrNoCanary {
		t.Errorf("%v, %v", r, err)
	}
}

func TestAMeterContinuesWhenResourcesAreReplaced(t *testing.T) {
	t.Parallel()
	live := map[string]Counts{"old": {Requests: 10}}
	m := NewMeter(func(yield func(any, Counts)) {
		for of, c := range live {
			yield(of, c)
		}
	})
	now := time.Now()
	m.Tick(now)
	failed := Counts{Requests: 15, RequestsFailed: 2}
	failed.Fail("request 502", 2)
	live["old"] = failed
	start, recent := m.Total(now.Add(time.Second))
	if recent.Requests != 5 || recent.RequestsFailed != 2 || recent.Failures["request 502"] != 2 {
		t.Errorf("recent: %+v", recent)
	}
	live = map[string]Counts{"new": {Requests: 3}}
	if got := m.Since(start, now.Add(2*time.Second)); got.Requests != 3 || got.RequestsFailed != 0 || len(got.Failures) != 0 {
		t.Errorf("since: %+v", got)
	}
	later := now.Add(2 * window)
	if _, recent := m.Total(later); recent.Requests != 0 {
		t.Errorf("counts of the window, when all are older: %+v", recent)
	}
}
