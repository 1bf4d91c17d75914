package gateway

import (
	"context"

	"github.com/drawbridge-gateway/drawbridge/gateway/admin"
	"github.com/drawbridge-gateway/drawbridge/gateway/audit"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// recorded calls run to make the change that r describes, and records the caller and the
// result. run returns an error, or the revisions before and after. recorded refuses a
// change that cannot be recorded, except an automatic rollback, which must not depend on
// the disk of the audit log.
func (w *writer) recorded(ctx context.Context, r audit.Record, run func() (before, after int64, err error)) (err error) {
	end := w.audit.Add
	if r.Method != byDeadline {
		end, err = w.audit.Begin(ctx, r)
	}
	if err != nil {
		err = invalid.Errorf(invalid.Unavailable, "", "%v; nothing was changed", err)
	} else {
		r.RevisionBefore, r.RevisionAfter, err = run()
	}
	r.Result, r.Error = admin.Outcome(err)
	end(r)
	return err
}

// recordedApply calls apply and records it. The admin API records dry runs, which change
// nothing.
func (w *writer) recordedApply(ctx context.Context, e store.Edit, apply func() (*store.Result, error)) (result *store.Result, err error) {
	if w.audit == nil || e.DryRun {
		return apply()
	}
	r := admin.RecordOf(e.Origin)
	r.Comment, r.Resources, r.RevisionBefore = e.Comment, admin.ResourcesOf(e), w.State().Revision()
	err = w.recorded(ctx, r, func() (int64, int64, error) {
		if result, err = apply(); err != nil {
			return r.RevisionBefore, 0, err
		}
		return result.Base.Revision(), result.Revision, nil
	})
	return result, err
}

// recordedConfirm calls confirm and records it.
func (w *writer) recordedConfirm(ctx context.Context, n int64, o store.Origin, confirm func() error) error {
	if w.audit == nil {
		return confirm()
	}
	r := admin.RecordOf(o)
	r.RevisionBefore = n
	return w.recorded(ctx, r, func() (int64, int64, error) {
		err := confirm()
		return n, n, err
	})
}

// recordUndone records that the starting gateway rolled back a pending revision.
func (w *writer) recordUndone(p *adminv1.Pending, now *store.State) {
	r := admin.RecordOf(store.Origin{Method: byDeadline})
	r.Comment, r.RevisionBefore, r.RevisionAfter = notConfirmed(p), p.GetRevision(), now.Revision()
	r.Result, r.Error = admin.Outcome(nil)
	w.audit.Add(r)
}
