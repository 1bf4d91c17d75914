package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/gateway/fleet"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A pending is the live revision while it waits to be confirmed. It is immutable.
type pending struct {
	*adminv1.Pending
	deadline time.Time // the expire_time, with a monotonic clock reading; zero for a rollout
}

// rollsOut reports whether a revision is being rolled out. p may be nil.
func (p *pending) rollsOut() bool { return p != nil && p.GetRollout() != nil }

// ends reports whether the edit rolls back the pending revision.
func (p *pending) ends(e store.Edit) bool {
	return e.Rollback != nil && e.Rollback.Revision == p.GetRollbackTo() && e.ConfirmWithin == 0
}

// byDeadline is the method of the edits that roll back because a deadline has passed.
const byDeadline = "deadline"

func (p *pending) String() string {
	if p.rollsOut() {
		return fmt.Sprintf("revision %d, made by %s, is being rolled out", p.GetRevision(), p.GetPrincipal())
	}
	return fmt.Sprintf("revision %d, made by %s, is pending until %s", p.GetRevision(), p.GetPrincipal(), p.deadline.UTC().Format("15:04:05 MST"))
}

// admit rejects a changing edit while a revision is pending, unless the edit rolls back
// that revision. A dry run gets a warning instead.
func (w *writer) admit(e store.Edit, draft *store.Draft, bad *invalid.List) {
	if e.Follow != nil { // admitted by the gateway that took it
		return
	}
	p := w.pending.Load()
	if p == nil && e.Origin.Method == byDeadline {
		bad.AddClass(invalid.Conflict, "", "the revision was confirmed in time")
		return
	}
	// The fleet itself ends a rollout: see rollouts.revert.
	if p == nil || !draft.Changed() || p.ends(e) && !p.rollsOut() {
		return
	}
	if e.DryRun {
		bad.Warn("PENDING", "", "%v: until it is confirmed, this write is refused", p)
		return
	}
	bad.AddClass(invalid.Pending, "", "%v: confirm it, or roll back to revision %d", p, p.GetRollbackTo())
}

// beginPending marks a revision as pending. The store already has it.
func (w *writer) beginPending(revision *adminv1.Pending, within time.Duration) {
	if revision.GetRollout() != nil { // the fleet ends it
		w.pending.Store(&pending{Pending: revision})
		w.keeper.Clear()
		return
	}
	p := &pending{revision, time.Now().Add(within)}
	w.pending.Store(p)
	w.keeper.Set(p.GetRevision(), p.deadline)
}

// endPending ends the pending state. The store already records that no revision
// is pending.
func (w *writer) endPending() {
	w.pending.Store(nil)
	w.keeper.Clear()
	w.checkFiles() // files that changed in the meantime were not loaded
}

// liveAndPending returns the live snapshot, and the revision that is pending: the live one, or
// one that is being rolled out. Without such a revision it returns nil.
func (w *writer) liveAndPending() (*snapshot.Snapshot, *pending) {
	for {
		live, p := w.live.Load(), w.pending.Load()
		switch {
		case w.live.Load() != live:
		case p != nil && !p.rollsOut() && p.GetRevision() != live.State().Revision(): // the pending revision is not live yet, or no longer live
			return live, nil
		default:
			return live, p
		}
	}
}

// Pending returns the revision that waits to be confirmed, or nil.
func (w *writer) Pending() *adminv1.Pending {
	return w.pending.Load().message()
}

// message returns a copy of the API's message, or nil if p is nil.
func (p *pending) message() *adminv1.Pending {
	if p == nil {
		return nil
	}
	return proto.Clone(p.Pending).(*adminv1.Pending)
}

// Confirm makes a pending revision permanent and returns it. The error is an
// *invalid.Error. Confirming a revision again succeeds.
func (w *writer) Confirm(ctx context.Context, n int64, o store.Origin) (r *adminv1.Revision, err error) {
	err = w.recordedConfirm(ctx, n, o, func() error {
		if p := w.pending.Load(); p.rollsOut() && p.GetRevision() == n {
			r, err = rollouts{w}.promote(ctx, n, o)
		} else {
			r, err = w.confirm(ctx, n, o)
		}
		return err
	})
	return r, err
}

func (w *writer) confirm(ctx context.Context, n int64, o store.Origin) (*adminv1.Revision, error) {
	if n <= 0 {
		return nil, invalid.Errorf(invalid.Argument, "revision", "must be the number of the pending revision; GetStatus has it")
	}
	if err := w.lock(ctx); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	r, err := w.history.Revision(n)
	if err != nil || r.GetConfirmTime() != nil {
		return r, err
	}
	p := w.pending.Load()
	switch {
	case p != nil && p.GetRevision() == n && time.Now().Before(p.deadline):
	case r.GetExpireTime() != nil:
		return nil, invalid.Errorf(invalid.Pending, "revision", "%d was not confirmed by %s: the gateway rolls back to the revision before",
			n, r.GetExpireTime().AsTime().Format("15:04:05 MST"))
	case p != nil:
		return nil, invalid.Errorf(invalid.Pending, "revision", "is %d, which needs no confirmation: %v", n, p)
	default:
		return nil, invalid.Errorf(invalid.Pending, "revision", "is %d, which needs no confirmation: no revision is pending", n)
	}
	r.ConfirmTime, r.ConfirmPrincipal = timestamppb.New(w.now()), o.Principal
	if err := w.store.EndPending(r); errors.Is(err, fleet.ErrBehind) {
		return nil, invalid.Errorf(invalid.Conflict, "", "another gateway of the fleet changed the configuration at the same time: try again")
	} else if err != nil {
		w.log.Error("cannot write to the store", "error", err)
		return nil, invalid.Errorf(invalid.Unavailable, "", "the store cannot write: %v; revision %d is still pending", err, n)
	}
	w.endPending()
	w.log.Info("revision confirmed", "revision", n)
	return r, nil
}

// goBack rolls back a pending revision whose deadline has passed. If the previous
// revision is no longer valid as a whole, for example because a file is gone, the
// affected resources are down.
func (w *writer) goBack(ctx context.Context, n int64) error {
	// The deadline may pass before the pending revision is live.
	w.mu.Lock()
	p, state := w.pending.Load(), w.State()
	w.mu.Unlock()
	if p == nil || p.GetRevision() != n || w.stopping.Err() != nil { // if the gateway is stopping, its next start rolls back
		return nil
	}
	e, err := undoing(p.Pending, w.history, state)
	if err != nil {
		return err
	}
	w.log.Warn("revision not confirmed in time: rolling back", "revision", n, "to", p.GetRollbackTo())
	_, err = w.Apply(ctx, e)
	if err == nil || w.pending.Load() != p { // the revision was confirmed at the last moment, or a caller rolled it back
		return nil
	}
	w.log.Error("the previous revision is no longer valid as a whole: its invalid resources will be down", "revision", p.GetRollbackTo(), "error", err)
	e.Force = true
	_, err = w.Apply(ctx, e)
	return err
}

// undoing returns the edit that rolls back the live state from a revision that was not
// confirmed in time.
func undoing(p *adminv1.Pending, h *revisions.History, live *store.State) (store.Edit, error) {
	e, err := h.Rollback(live, p.GetRollbackTo())
	e.Origin, e.Comment = store.Origin{Method: byDeadline}, notConfirmed(p)
	return e, err
}

func notConfirmed(p *adminv1.Pending) string {
	return fmt.Sprintf("revision %d was not confirmed in time", p.GetRevision())
}

// undoPending returns the state to start with. If a revision was pending when the
// previous process ended, it returns the state before that revision.
func undoPending(db stateStore, h *revisions.History) (state *store.State, undone *adminv1.Pending, err error) {
	p, state := db.Pending(), db.State()
	if p == nil {
		return state, nil, nil
	}
	fail := func(err error) (*store.State, *adminv1.Pending, error) {
		return nil, nil, fmt.Errorf("cannot roll back from revision %d, which was not confirmed, to %d: %w", p.GetRevision(), p.GetRollbackTo(), err)
	}
	e, err := undoing(p, h, state)
	if err != nil {
		return fail(err)
	}
	var bad invalid.List
	draft := state.Edit(e, &bad)
	if err := bad.Err(); err != nil {
		return fail(err)
	}
	if !draft.Changed() {
		err = db.EndPending(nil)
	} else {
		err = db.Commit(draft, revisions.NewRecord(draft, e, time.Now(), func(store.Ref) string { return "" }))
	}
	if err != nil {
		return fail(err)
	}
	return draft.State(), p, nil
}
