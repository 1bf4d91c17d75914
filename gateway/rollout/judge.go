package rollout

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	// followWithin is how long a canary may take to run the revision.
	followWithin = 30 * time.Second

	// lostAfter is how long a canary may be disconnected.
	lostAfter = 15 * time.Second

	// earlyFailures is how many failures end a rollout before the hold is over. Fewer
	// failures say little about a rate.
	earlyFailures = 5

	// deviations is by how many standard deviations a rate must exceed another one to
	// count as higher.
	deviations = 3
)

// A Judge decides how one rollout ends. It belongs to one goroutine.
type Judge struct {
	rollout *adminv1.RolloutStatus
	since   time.Time            // when the judge's gateway learned of the rollout
	missing map[string]time.Time // when a canary was first seen disconnected
}

// NewJudge returns a judge of a rollout of which its gateway learned at a time.
func NewJudge(r *adminv1.RolloutStatus, since time.Time) *Judge {
	return &Judge{rollout: r, since: since, missing: map[string]time.Time{}}
}

// Decide returns how the rollout ends by what the gateways of the fleet report, or nil
// if it is still in progress.
func (j *Judge) Decide(all []*adminv1.Gateway, now time.Time) *adminv1.RolloutStatus {
	if fault := j.lost(all, now); fault != "" {
		return j.End(all, adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK, fault, now)
	}
	ready, fault := j.reported(all, now)
	if fault != "" {
		return j.End(all, adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK, fault, now)
	}
	e := gather(j.rollout, all)
	if fault := e.fault(j.rollout.GetMaxFailureRate(), ready); fault != "" {
		return j.End(all, adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK, fault, now)
	}
	if !ready {
		return nil
	}
	return j.End(all, adminv1.RolloutState_ROLLOUT_STATE_PROMOTED, e.summary(), now)
}

// End returns the status of the rollout when it ends for a reason.
func (j *Judge) End(all []*adminv1.Gateway, state adminv1.RolloutState, message string, now time.Time) *adminv1.RolloutStatus {
	out := proto.CloneOf(j.rollout)
	e := gather(j.rollout, all)
	out.State, out.Message, out.EndTime = state, message, timestamppb.New(now)
	out.CanaryTraffic, out.TrafficBefore, out.OtherTraffic = e.canaries, e.before, e.others
	return out
}

// lost returns why a canary no longer takes part, or "".
func (j *Judge) lost(all []*adminv1.Gateway, now time.Time) string {
	for _, c := range j.rollout.GetCanaries() {
		g := find(all, c.GetGatewayId())
		if g.GetConnected() && g.GetProcessId() != c.GetProcessId() {
			return fmt.Sprintf("the canary %s has restarted", c.GetGatewayId())
		}
		if g.GetConnected() {
			delete(j.missing, c.GetGatewayId())
			continue
		}
		since, known := j.missing[c.GetGatewayId()]
		if !known {
			j.missing[c.GetGatewayId()] = now
		} else if now.Sub(since) >= lostAfter {
			return fmt.Sprintf("the canary %s has lost its connection to etcd, or has stopped", c.GetGatewayId())
		}
	}
	return ""
}

// reported reports whether all canaries have run the revision for long enough. fault says
// why one of them does not run all of it.
func (j *Judge) reported(all []*adminv1.Gateway, now time.Time) (ready bool, fault string) {
	ready = true
	for _, c := range j.rollout.GetCanaries() {
		g := find(all, c.GetGatewayId())
		r := g.GetRollout()
		switch {
		case r.GetRevision() == j.rollout.GetRevision() && len(r.GetNewProblems()) > 0:
			p := r.GetNewProblems()[0]
			return false, fmt.Sprintf("at the canary %s, %s %q is down: %s", c.GetGatewayId(), store.KindName(p.GetKind()), p.GetName(), p.GetReason())
		case r.GetRevision() == j.rollout.GetRevision() && r.GetLive():
			ready = ready && g.GetConnected() && r.GetDuration().AsDuration() >= j.rollout.GetHold().AsDuration()
		case now.Sub(j.since) >= followWithin && g.GetError() != "":
			return false, fmt.Sprintf("the canary %s cannot run the revision: %s", c.GetGatewayId(), g.GetError())
		case now.Sub(j.since) >= followWithin:
			return false, fmt.Sprintf("the canary %s did not run the revision within %v", c.GetGatewayId(), followWithin)
		default:
			ready = false
		}
	}
	return ready, ""
}

// find returns the gateway with an ID, or nil.
func find(all []*adminv1.Gateway, id string) *adminv1.Gateway {
	for _, g := range all {
		if g.GetGatewayId() == id {
			return g
		}
	}
	return nil
}

// evidence is the traffic that a rollout is judged by.
type evidence struct{ canaries, before, others *adminv1.TrafficCounts }

func gather(r *adminv1.RolloutStatus, all []*adminv1.Gateway) evidence {
	e := evidence{&adminv1.TrafficCounts{}, &adminv1.TrafficCounts{}, &adminv1.TrafficCounts{}}
	for _, g := range all {
		report := g.GetRollout()
		switch {
		case report.GetRevision() != r.GetRevision():
		case IsCanary(r, g.GetGatewayId()):
			add(e.canaries, report.GetTraffic())
			add(e.before, report.GetTrafficBefore())
		default:
			add(e.others, report.GetTraffic())
		}
	}
	return e
}

// add adds counts to a sum.
func add(sum, c *adminv1.TrafficCounts) {
	sum.Requests += c.GetRequests()
	sum.RequestsFailed += c.GetRequestsFailed()
	sum.Connections += c.GetConnections()
	sum.ConnectionsFailed += c.GetConnectionsFailed()
	sum.Dials += c.GetDials()
	sum.DialsFailed += c.GetDialsFailed()
	for reason, n := range c.GetFailures() {
		if sum.Failures == nil {
			sum.Failures = map[string]int64{}
		}
		sum.Failures[reason] += n
	}
}

// A ratio is how many of a number of attempts failed.
type ratio struct{ failed, attempts int64 }

func (r ratio) rate() float64 {
	if r.attempts == 0 {
		return 0
	}
	return float64(r.failed) / float64(r.attempts)
}

func (r ratio) String() string {
	if r.attempts == 0 {
		return "none"
	}
	return fmt.Sprintf("%d of %d (%.2f%%)", r.failed, r.attempts, 100*r.rate())
}

// kinds are the kinds of traffic that are judged. Reasons of failures begin with prefix.
var kinds = []struct {
	name, prefix string
	of           func(*adminv1.TrafficCounts) ratio
}{
	{"requests", "request ", func(c *adminv1.TrafficCounts) ratio { return ratio{c.GetRequestsFailed(), c.GetRequests()} }},
	{"client connections", "client ", func(c *adminv1.TrafficCounts) ratio { return ratio{c.GetConnectionsFailed(), c.GetConnections()} }},
	{"dials", "dial ", func(c *adminv1.TrafficCounts) ratio { return ratio{c.GetDialsFailed(), c.GetDials()} }},
}

// fault says which kind of the canaries' traffic fails too often, or "". Before the end of
// the hold, few failures do not count.
func (e evidence) fault(most float64, over bool) string {
	for _, k := range kinds {
		r, before, others := k.of(e.canaries), k.of(e.before), k.of(e.others)
		if r.failed == 0 || !over && r.failed < earlyFailures {
			continue
		}
		if r.rate() > most && r.higher(before) && r.higher(others) {
			return fmt.Sprintf("%s of the canaries fail too often: %v; before: %v; at the other gateways: %v; the limit is %.4g%%%s",
				k.name, r, before, others, 100*most, reasons(e.canaries, k.prefix))
		}
	}
	return ""
}

// higher reports whether a rate exceeds another by more than chance explains.
func (r ratio) higher(than ratio) bool {
	if than.attempts == 0 {
		return true
	}
	p := than.rate()
	chance := math.Sqrt(p * (1 - p) * (1/float64(r.attempts) + 1/float64(than.attempts)))
	return r.rate() > p+deviations*chance
}

// maxReasons bounds how many reasons a message names.
const maxReasons = 3

// reasons lists the most frequent reasons of failures of one kind.
func reasons(c *adminv1.TrafficCounts, prefix string) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(c.GetFailures())) {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return int(c.GetFailures()[b] - c.GetFailures()[a]) })
	var out strings.Builder
	for i, name := range names[:min(len(names), maxReasons)] {
		out.WriteString([]string{"; ", ", "}[min(i, 1)])
		fmt.Fprintf(&out, "%s: %d", strings.TrimPrefix(name, prefix), c.GetFailures()[name])
	}
	return out.String()
}

// summary describes traffic that is good enough.
func (e evidence) summary() string {
	var parts []string
	for _, k := range kinds {
		if r := k.of(e.canaries); r.attempts > 0 {
			parts = append(parts, fmt.Sprintf("%s %v", k.name, r))
		}
	}
	if len(parts) == 0 {
		return "the canaries had no traffic, and no resource is down"
	}
	return "failures at the canaries: " + strings.Join(parts, ", ")
}
