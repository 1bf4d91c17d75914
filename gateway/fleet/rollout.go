package fleet

import (
	"context"
	"errors"
	"fmt"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/rollout"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// errNoRollout reports that the revision is not being rolled out.
var errNoRollout = errors.New("the rollout has ended")

// Stage commits a draft as a rollout, and makes it live nowhere: the canaries follow it like
// any commit. It has the errors of Commit, and *invalid.Error if there is no canary.
func (m *Member) Stage(ctx context.Context, d *store.Draft, r *revisions.Record, o *adminv1.Rollout) error {
	base, err := m.writable()
	if err != nil {
		return err
	}
	if base.Revision() != d.Base().Revision() {
		return ErrBehind
	}
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	all, err := m.gateways(ctx, base)
	if err != nil {
		return m.failed(err)
	}
	status, err := rollout.Begin(o, all, d.State().Revision(), m.now())
	if err != nil {
		return invalid.Errorf(invalid.Argument, "options.rollout.canaries", "%v", err)
	}
	r.Pending = &adminv1.Pending{
		Revision: d.State().Revision(), RollbackTo: d.Base().Revision(), Principal: r.Revision.GetPrincipal(), Comment: r.Revision.GetComment(), Rollout: status,
	}
	if _, err := m.remote.Commit(ctx, base, d, r); err != nil {
		return m.failed(err)
	}
	return nil
}

// Promote ends the rollout of a revision because a caller confirms it. When it returns nil,
// the end is live at this gateway. It returns ErrBehind if the rollout has ended.
func (m *Member) Promote(ctx context.Context, revision int64, principal string) (r *adminv1.Revision, err error) {
	err = conductor{m}.endFor(ctx, revision, adminv1.RolloutState_ROLLOUT_STATE_PROMOTED, "confirmed by "+principal, func(head *etcd.Head, end *adminv1.RolloutStatus) error {
		r, err = conductor{m}.promote(ctx, head, end, principal)
		return err
	})
	return r, err
}

// Revert ends the rollout of a revision because a caller rolls it back, like Promote.
func (m *Member) Revert(ctx context.Context, revision int64, e store.Edit) (d *store.Draft, err error) {
	message := fmt.Sprintf("rolled back by %s", e.Origin.Principal)
	err = conductor{m}.endFor(ctx, revision, adminv1.RolloutState_ROLLOUT_STATE_ROLLED_BACK, message, func(head *etcd.Head, end *adminv1.RolloutStatus) error {
		d, err = conductor{m}.revert(ctx, head, end, e.Origin, e.Comment)
		return err
	})
	return d, err
}

// endFor ends the rollout of a revision for a caller.
func (c conductor) endFor(ctx context.Context, revision int64, state adminv1.RolloutState, message string, end func(*etcd.Head, *adminv1.RolloutStatus) error) error {
	head, err := c.m.readHead(ctx)
	if err != nil {
		return err
	}
	if !rollsOut(head, revision) {
		return ErrBehind
	}
	pending, err := head.Pending()
	if err != nil {
		return err
	}
	all, err := c.m.gateways(ctx, head)
	if err != nil {
		return err
	}
	now := c.m.now()
	status := rollout.NewJudge(pending.GetRollout(), now).End(all, state, message, now)
	status.EndedBy = c.m.id
	err = end(head, status)
	switch {
	case errors.Is(err, etcd.ErrConflict):
		return ErrBehind
	case err != nil:
		return err
	}
	return c.m.Sync(ctx)
}

// AwaitRollout waits until the rollout of a revision has ended, and the end is live at this
// gateway if it can follow. It fails only when ctx ends, or when the record of the end is no longer stored.
func (m *Member) AwaitRollout(ctx context.Context, revision int64) (*adminv1.RolloutStatus, error) {
	for {
		end, err := m.rolloutEnd(ctx, revision)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil:
			if err := m.Sync(ctx); err != nil {
				m.log.Warn("the end of the rollout is not live yet", "revision", revision, "error", err)
			}
			return end, nil
		case errors.Is(err, errNoRollout):
			return nil, err
		}
		pause(ctx, watchPause)
	}
}

// rolloutEnd waits until the head has changed if a rollout is in progress, and then returns
// an error. It returns errNoRollout if nothing says how the rollout ended.
func (m *Member) rolloutEnd(ctx context.Context, revision int64) (*adminv1.RolloutStatus, error) {
	head, err := m.remote.Head(ctx)
	if err != nil {
		return nil, err
	}
	if rollsOut(head, revision) {
		if err := m.wait(ctx, head); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("the rollout of revision %d is in progress", revision)
	}
	// A promotion amends the record of the revision. A rollback is the next revision.
	for n := revision; n <= revision+1; n++ {
		record, err := m.remote.Record(ctx, head, n)
		switch {
		case err != nil:
			return nil, err
		case record != nil && record.Revision.GetRollout().GetRevision() == revision:
			return record.Revision.GetRollout(), nil
		}
	}
	return nil, errNoRollout
}
