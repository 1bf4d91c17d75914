package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A rolloutStep is a moment of a rollout at which a gateway dies.
type rolloutStep int

const (
	rolloutWritten  rolloutStep = iota // etcd holds the revision and its canaries
	rolloutLive                        // the canary serves the revision
	rolloutHeld                        // the hold has begun, and is not over
	rolloutJudged                      // the hold is over, or the failures are reported
	rolloutPromoted                    // all gateways begin to run the revision
	rolloutReverted                    // the canary begins to run the revision before it
)

func (s rolloutStep) String() string {
	return []string{"the canaries are written", "the canary is live", "during the hold", "during the judgement", "during the move to all", "during the way back"}[s]
}

// The gateways that a rollout proof kills.
const (
	killTaker     = "the gateway that took the write"
	killCanary    = "the canary"
	killBoth      = "the canary that took the write"
	killConductor = "the conductor"
)

// A rolloutCase is one rollout with one kill.
type rolloutCase struct {
	step   rolloutStep
	victim string
	bad    bool // the revision answers with errors
	late   bool // the gateway restarts only after the end of the rollout
}

// rolloutCases returns the cases of one round of the proof.
func rolloutCases(full bool) (out []rolloutCase) {
	if !full {
		return []rolloutCase{
			{step: rolloutWritten, victim: killTaker},
			{step: rolloutHeld, victim: killCanary},
			{step: rolloutPromoted, victim: killBoth},
			{step: rolloutReverted, victim: killTaker, bad: true},
		}
	}
	for step := rolloutWritten; step <= rolloutReverted; step++ {
		for _, victim := range []string{killTaker, killCanary, killBoth, killConductor} {
			if victim == killConductor && step < rolloutHeld {
				continue // no gateway conducts the rollout yet
			}
			for _, late := range []bool{false, true} {
				if step != rolloutReverted {
					out = append(out, rolloutCase{step, victim, false, late})
				}
				if step != rolloutPromoted && step != rolloutHeld { // errors may end the hold early
					out = append(out, rolloutCase{step, victim, true, late})
				}
			}
		}
	}
	return out
}

// proveRollouts kills a gateway at every step of rollouts. Each rollout ends in one state on
// all gateways.
func proveRollouts(p *proof) {
	f := startFleet(p.T, 1, "a", "b", "c")
	defer f.stop()
	f.converges()
	type tally struct{ kills, before, promoted, reverted int }
	counts := map[string]*tally{}
	var order []string
	for range max(p.rounds, 1) {
		for _, c := range rolloutCases(p.rounds > 0) {
			name := fmt.Sprintf("%s dies: %v", c.victim, c.step)
			if counts[name] == nil {
				counts[name] = &tally{}
				order = append(order, name)
			}
			began := time.Now()
			inProgress, promoted := f.rolloutWithKill(c)
			t := counts[name]
			t.kills++
			if inProgress {
				t.before++
			}
			if promoted {
				t.promoted++
			} else {
				t.reverted++
			}
			p.Logf("%s; bad %v, restarted late %v: promoted %v after %v", name, c.bad, c.late, promoted, time.Since(began).Round(time.Second/10))
		}
	}
	held := f.movesOn()
	f.stop()
	revisions := f.checkServed()
	for _, name := range order {
		t := counts[name]
		p.row(fmt.Sprintf("%d × %s", t.kills, name), fmt.Sprintf("%d died before the decision; %d promoted, %d rolled back, on all gateways", t.before, t.promoted, t.reverted))
	}
	p.row("all rollouts", fmt.Sprintf("%d revisions; %s; %d open at the end", revisions, f.summary(), held))
}

// rolloutWithKill makes a rollout, and kills a gateway. It returns whether the rollout was in progress
// when the gateway was dead, and how it ended.
func (f *testFleet) rolloutWithKill(c rolloutCase) (inProgress, promoted bool) {
	f.t.Helper()
	canary, taker := f.nodes[0], f.nodes[1]
	if c.victim == killBoth {
		taker = canary
	}
	hold := time.Second
	switch {
	case c.bad:
		hold = time.Hour // the failures end the rollout
	case c.step == rolloutHeld && (c.victim == killCanary || c.victim == killBoth):
		hold = time.Hour // the death ends the rollout
	case c.step == rolloutHeld:
		hold = 5 * time.Second
	}
	before := f.head()
	body, code := f.newAnswer("good"), int32(http.StatusOK)
	if c.bad {
		body, code = f.newAnswer("bad"), http.StatusServiceUnavailable
	}
	answered, admin := make(chan error, 1), taker.g.admin
	go func() {
		_, err := admin.Apply(longContext(f.t), &adminv1.ApplyRequest{
			Resources: wrap(f.t, []proto.Message{answer(body, code)}),
			Options: &adminv1.WriteOptions{Rollout: &adminv1.Rollout{
				Canaries: &adminv1.Canaries{Gateways: &adminv1.Canaries_Selector{Selector: "id=" + canary.id}}, Hold: durationpb.New(hold)}},
		})
		answered <- err
	}()
	head := f.awaitHead("the rollout is committed", func(h *etcd.Head) bool { return h.Revision() > before.Revision() })
	revision := before.Revision() + 1
	if got := f.answers(head)[revision]; got != body {
		f.t.Fatalf("revision %d answers %q instead of %q", revision, got, body)
	}
	f.awaitStep(c, canary, body, revision, hold)
	victim := f.victim(c, canary, taker)
	victim.kill()
	now := f.head()
	inProgress = now.Revision() == revision && len(now.Waiting) > 0
	if !c.late {
		f.restart(victim)
	}
	end := f.awaitHead("the rollout ends", func(h *etcd.Head) bool { return h.Revision() > revision || len(h.Waiting) == 0 })
	if c.late {
		f.restart(victim)
	}
	f.converges()

	state := f.record(end, revision).Revision.GetRollout()
	if end.Revision() > revision {
		state = f.record(end, revision+1).Revision.GetRollout()
	}
	promoted = state.GetState() == adminv1.RolloutState_ROLLOUT_STATE_PROMOTED
	want := f.answers(end)[before.Revision()]
	if promoted {
		want = body
	}
	last := f.head()
	if got := f.answers(last)[last.Revision()]; got != want || state.GetRevision() != revision || last.Revision() != end.Revision() || len(last.Waiting) > 0 {
		f.t.Errorf("%+v: the fleet answers %q instead of %q; the rollout of revision %d: %v; heads %d, %d", c, got, want, revision, state, end.Revision(), last.Revision())
	}
	// A write of which the writer knows the outcome has that outcome.
	err := <-answered
	switch said := status.Code(err); {
	case said == codes.OK && !promoted, said == codes.FailedPrecondition && strings.Contains(err.Error(), "rolled back") && promoted:
		f.t.Errorf("%+v: the writer got %v; the rollout: %v", c, err, state)
	}
	switch {
	case c.bad && promoted && inProgress:
		f.t.Errorf("%+v: a revision that fails was promoted: %v", c, state)
	case !promoted && !c.bad && victim != canary && !strings.Contains(state.GetMessage(), "lost its connection") && !strings.Contains(state.GetMessage(), "did not run the revision"): // on a machine that stalls
		f.t.Errorf("%+v: a revision that works was rolled back: %v", c, state)
	case promoted && inProgress && hold == time.Hour:
		f.t.Errorf("%+v: a revision whose canary died was promoted: %v", c, state)
	}
	return inProgress, promoted
}

// awaitStep waits until a rollout reaches the step of a case, or has passed it.
func (f *testFleet) awaitStep(c rolloutCase, canary *fleetNode, body string, revision int64, hold time.Duration) {
	f.t.Helper()
	switch c.step {
	case rolloutWritten:
	case rolloutLive:
		eventually(f.t, "the canary serves the revision", func() bool { return canary.serving() == body || f.passed(revision) })
	case rolloutHeld, rolloutJudged:
		eventually(f.t, "the canary reports", func() bool {
			all, _, err := f.nodes[2].list()
			if err != nil {
				return false
			}
			i := slices.IndexFunc(all, func(g *adminv1.Gateway) bool { return g.GetGatewayId() == canary.id })
			if i < 0 {
				return false
			}
			r := all[i].GetRollout()
			switch {
			case f.passed(revision):
				return true
			case r.GetRevision() != revision || !r.GetLive():
				return false
			case c.step == rolloutHeld:
				return c.victim != killConductor || f.conductor() != nil
			case c.bad:
				return r.GetTraffic().GetRequestsFailed() > 0
			}
			return r.GetDuration().AsDuration() >= hold
		})
	case rolloutPromoted, rolloutReverted:
		f.awaitHead("the decision", func(h *etcd.Head) bool { return h.Revision() > revision || len(h.Waiting) == 0 })
	}
}

// passed reports whether the rollout of a revision has ended.
func (f *testFleet) passed(revision int64) bool {
	h := f.head()
	return h.Revision() > revision || len(h.Waiting) == 0
}

// victim returns the gateway that a case kills.
func (f *testFleet) victim(c rolloutCase, canary, taker *fleetNode) *fleetNode {
	switch c.victim {
	case killCanary, killBoth:
		return canary
	case killConductor:
		if n := f.conductor(); n != nil {
			return n
		}
	}
	return taker
}

// conductor returns the gateway that conducts a rollout, or nil.
func (f *testFleet) conductor() *fleetNode {
	resp, err := f.client.Get(f.t.Context(), fleetPrefix+"/conductor")
	if err != nil || len(resp.Kvs) == 0 {
		return nil
	}
	for _, n := range f.nodes {
		if string(resp.Kvs[0].Value) == n.id {
			return n
		}
	}
	return nil
}
