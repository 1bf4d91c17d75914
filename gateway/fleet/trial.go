package fleet

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/rollout"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A trial is a rollout as one gateway sees it.
type trial struct {
	rollout *adminv1.RolloutStatus
	canary  bool
	known   time.Time      // when the gateway learned of the rollout
	live    time.Time      // when this gateway, a canary, had made the revision live; zero: not yet
	start   rollout.Counts // the counts when the rollout began at this gateway
	before  rollout.Counts
	down    map[store.Ref]bool // the resources that were down before

	report   *adminv1.RolloutReport
	reported time.Time
}

// trials knows the rollout in progress. Its methods may be called concurrently.
type trials struct {
	id       string // the ID of the gateway
	clock    func() time.Time
	meter    *rollout.Meter
	describe func() *adminv1.Gateway
	notify   func(Event, int64, string)
	changed  func() // makes the member report soon
	log      hclog.Logger

	began chan struct{} // holds a value if a rollout has begun

	mu  sync.Mutex
	now *trial // nil: no rollout is in progress; guarded by mu
}

// Gateways that are not canaries report their traffic less often: there may be many.
const (
	reportCanaryEvery = time.Second
	reportOtherEvery  = 5 * time.Second
)

// expect records that a rollout is in progress, before its revision is live; nil: none.
func (ts *trials) expect(r *adminv1.RolloutStatus) {
	ts.mu.Lock()
	known := r == nil || ts.now != nil && ts.now.rollout.GetRevision() == r.GetRevision()
	ts.mu.Unlock()
	if known {
		return
	}
	t := &trial{rollout: r, canary: rollout.IsCanary(r, ts.id), known: ts.clock(), down: map[store.Ref]bool{}}
	t.start, t.before = ts.meter.Total(t.known)
	for _, p := range ts.describe().GetProblems() {
		t.down[store.Ref{Kind: p.GetKind(), Name: p.GetName()}] = true
	}
	ts.mu.Lock()
	ts.now = t
	ts.mu.Unlock()
	ts.log.Info("a rollout began", "revision", r.GetRevision(), "canaries", len(r.GetCanaries()), "canary", t.canary)
	ts.notify(RolloutStarted, r.GetRevision(), canaryNames(r))
	select {
	case ts.began <- struct{}{}:
	default:
	}
}

// canaryNames lists the canaries of a rollout.
func canaryNames(r *adminv1.RolloutStatus) string {
	const most = 10
	out := "canaries: "
	for i, c := range r.GetCanaries() {
		switch {
		case i == most:
			return out + " and more"
		case i > 0:
			out += ", "
		}
		out += c.GetGatewayId()
	}
	return out
}

// reached records what the gateway has made live.
func (ts *trials) reached(to *destination) {
	ts.mu.Lock()
	t := ts.now
	if t == nil {
		ts.mu.Unlock()
		return
	}
	if to.pending.GetRollout() != nil {
		if t.canary && t.live.IsZero() {
			t.live = ts.clock()
		}
		ts.mu.Unlock()
		ts.changed()
		return
	}
	ts.now = nil
	ts.mu.Unlock()
	ts.changed()
	for _, record := range to.records {
		r := record.Revision.GetRollout()
		if r.GetRevision() != t.rollout.GetRevision() {
			continue
		}
		ts.log.Info("a rollout ended", "revision", r.GetRevision(), "state", r.GetState().String(), "reason", r.GetMessage())
		event := RolloutPromoted
		if r.GetState() == adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK {
			event = RolloutRolledBack
		}
		ts.notify(event, r.GetRevision(), r.GetMessage())
	}
}

// current returns the rollout in progress, or nil, and when the gateway learned of it.
func (ts *trials) current() (r *adminv1.RolloutStatus, known time.Time) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.now == nil {
		return nil, time.Time{}
	}
	return ts.now.rollout, ts.now.known
}

// report returns the gateway's report on the rollout in progress, or nil. problems
// are the gateway's current problems. A report that is only a moment old is returned
// again.
func (ts *trials) report(problems []*adminv1.Problem, now time.Time) *adminv1.RolloutReport {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.now
	if t == nil {
		return nil
	}
	every, since := reportOtherEvery, t.known
	if t.canary {
		every, since = reportCanaryEvery, t.live
	}
	live := t.canary && !t.live.IsZero()
	if t.report != nil && t.report.GetLive() == live && now.Sub(t.reported) < every {
		return t.report
	}
	report := &adminv1.RolloutReport{Revision: t.rollout.GetRevision(), Live: live, TrafficBefore: t.before.Message()}
	if live || !t.canary {
		report.Duration = durationpb.New(now.Sub(since))
		report.Traffic = ts.meter.Since(t.start, now).Message()
	}
	if live {
		report.NewProblems = slices.DeleteFunc(slices.Clone(problems), func(p *adminv1.Problem) bool {
			return t.down[store.Ref{Kind: p.GetKind(), Name: p.GetName()}]
		})
	}
	t.report, t.reported = report, now
	return report
}
