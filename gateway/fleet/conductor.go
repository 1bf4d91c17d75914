package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/rollout"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// byRollout is the method of the revisions that roll back a failed rollout.
const byRollout = "rollout"

const (
	decideEvery = time.Second

	// leadEvery is how often a gateway looks whether another one still conducts the rollout.
	leadEvery = 2 * time.Second
)

// A conductor ends rollouts for a member. One gateway of the fleet conducts a rollout at a
// time: it judges the canaries and ends the rollout. When it stops, another one takes over. Two
// conductors do no harm, because the first decision changes the head.
type conductor struct{ m *Member }

// run takes part in rollouts until ctx ends.
func (c conductor) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		r, known := c.m.trials.current()
		if r == nil {
			select {
			case <-ctx.Done():
			case <-c.m.trials.began:
			}
			continue
		}
		leads, err := c.conduct(ctx, rollout.NewJudge(r, known), r)
		switch {
		case err != nil && ctx.Err() == nil:
			c.m.log.Warn("cannot conduct the rollout: trying again", "revision", r.GetRevision(), "error", err)
			pause(ctx, backoff(failures))
			failures++
		case leads:
			failures = 0
			pause(ctx, decideEvery) // the end of the rollout becomes live here
		default:
			failures = 0
			pause(ctx, leadEvery+rand.N(leadEvery))
		}
	}
}

// conduct conducts a rollout until it ends. It returns false if another gateway does.
func (c conductor) conduct(ctx context.Context, judge *rollout.Judge, r *adminv1.RolloutStatus) (leads bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lead, err := c.m.remote.Lead(ctx, c.m.id)
	if err != nil || lead == nil {
		return false, err
	}
	defer func() {
		lead.Leave()
		cancel()
		<-lead.Lost()
	}()
	tick := time.NewTicker(decideEvery)
	defer tick.Stop()
	for {
		head, err := c.m.readHead(ctx)
		if err != nil {
			return true, err
		}
		if !rollsOut(head, r.GetRevision()) {
			return true, nil
		}
		all, err := c.m.gateways(ctx, head)
		if err != nil {
			return true, err
		}
		if end := judge.Decide(all, c.m.now()); end != nil {
			end.EndedBy = c.m.id
			return true, c.end(ctx, head, end, store.Origin{Method: byRollout})
		}
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-lead.Lost():
			return true, errors.New("the lease of the conductor ended")
		case <-tick.C:
		}
	}
}

// rollsOut reports whether a head waits for the end of the rollout of a revision.
func rollsOut(h *etcd.Head, revision int64) bool {
	pending, err := h.Pending()
	return err == nil && pending.GetRollout() != nil && pending.GetRevision() == revision && h.Revision() == revision
}

// end stores the end of the rollout that a head waits for. It returns nil if another gateway
// was faster.
func (c conductor) end(ctx context.Context, head *etcd.Head, end *adminv1.RolloutStatus, o store.Origin) (err error) {
	if end.GetState() == adminv1.RolloutState_ROLLOUT_STATE_PROMOTED {
		_, err = c.promote(ctx, head, end, "gateway")
	} else {
		_, err = c.revert(ctx, head, end, o, "")
	}
	if errors.Is(err, etcd.ErrConflict) {
		return nil
	}
	return err
}

// promote stores that all gateways may run the revision of a head.
func (c conductor) promote(ctx context.Context, head *etcd.Head, end *adminv1.RolloutStatus, by string) (*adminv1.Revision, error) {
	last, err := c.m.remote.Last(ctx, head)
	if err != nil {
		return nil, err
	}
	r := proto.CloneOf(last.Revision)
	r.ConfirmTime, r.ConfirmPrincipal, r.Rollout = timestamppb.New(c.m.now()), by, end
	if _, err := c.m.remote.Amend(ctx, head, r); err != nil {
		return nil, err
	}
	return r, nil
}

// revert commits the revision that rolls back the revision of a head. It needs no
// compilation: the state was in force before.
func (c conductor) revert(ctx context.Context, head *etcd.Head, end *adminv1.RolloutStatus, o store.Origin, comment string) (*store.Draft, error) {
	reading, err := c.m.remote.Read(ctx, head, etcd.Position{State: new(store.State)})
	if err != nil {
		return nil, err
	}
	last, err := c.m.remote.Last(ctx, head)
	if err != nil {
		return nil, err
	}
	pending, err := head.Pending()
	if err != nil {
		return nil, err
	}
	e := store.Edit{Origin: o, Comment: comment, Rollback: &store.Rollback{Revision: pending.GetRollbackTo()}}
	if e.Comment == "" {
		e.Comment = shorten(fmt.Sprintf("rollout of revision %d failed: %s", head.Revision(), end.GetMessage()), store.MaxComment)
	}
	for _, p := range last.Priors {
		at := invalid.Path(store.KindName(p.Ref.Kind)).Key(p.Ref.Name)
		if p.Resource != nil {
			e.Puts = append(e.Puts, store.Put{Path: at, Resource: store.WithoutOutput(p.Resource)})
		} else {
			e.Deletes = append(e.Deletes, store.Delete{Path: at, Kind: p.Ref.Kind, Name: p.Ref.Name})
		}
	}
	var bad invalid.List
	draft := reading.State.Edit(e, &bad)
	if err := bad.Err(); err != nil {
		return nil, fmt.Errorf("cannot roll back revision %d: %w", head.Revision(), err)
	}
	record := revisions.NewRecord(draft, e, c.m.now(), func(store.Ref) string { return "" })
	record.Revision.Rollout = end
	if _, err := c.m.remote.Commit(ctx, head, draft, record); err != nil {
		return nil, err
	}
	return draft, nil
}

// shorten cuts a text to a number of bytes.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}
