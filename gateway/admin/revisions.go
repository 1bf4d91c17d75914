package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/fielddiff"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// maxListedChanges bounds the changes of a revision in a list of revisions.
const maxListedChanges = 100

func (s adminService) ListRevisions(_ context.Context, req *adminv1.ListRevisionsRequest) (*adminv1.ListRevisionsResponse, error) {
	const list = "revisions"
	last, err := parseToken[int64](list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	from := s.gateway.State().Revision()
	if last != nil {
		from = min(from, *last-1)
	}
	out, p := &adminv1.ListRevisionsResponse{}, newPage(req.GetPageSize())
	err = s.gateway.History().Each(from, func(r *adminv1.Revision) bool {
		r.Changes = first(r.Changes, maxListedChanges)
		if !p.takes(r) {
			out.NextPageToken = formatToken(list, r.GetRevision()+1)
			return false
		}
		out.Revisions = append(out.Revisions, r)
		return true
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s adminService) GetRevision(_ context.Context, req *adminv1.GetRevisionRequest) (*adminv1.Revision, error) {
	if n := req.GetRevision(); n > s.gateway.State().Revision() {
		return nil, invalid.Errorf(invalid.NotFound, "revision", "there is no revision %d", n)
	}
	return s.gateway.History().Revision(req.GetRevision())
}

// A diffKey orders the resources that differ between two revisions.
type diffKey struct {
	To   int64 // the revision compared to
	Kind adminv1.Kind
	Name string
}

func (s adminService) DiffRevisions(_ context.Context, req *adminv1.DiffRevisionsRequest) (*adminv1.DiffRevisionsResponse, error) {
	list := fmt.Sprintf("diff %d", req.GetFrom())
	if req.To != nil {
		list += fmt.Sprintf(" %d", req.GetTo())
	}
	last, err := parseToken[diffKey](list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	to := req.To
	if last != nil {
		to = &last.To
	}
	all, upTo, err := s.gateway.Diff(req.GetFrom(), to)
	if err != nil {
		return nil, err
	}
	if last != nil {
		all = all[sort.Search(len(all), func(i int) bool {
			return all[i].Ref.Compare(store.Ref{Kind: last.Kind, Name: last.Name}) > 0
		}):]
	}
	out, p := &adminv1.DiffRevisionsResponse{To: upTo}, newPage(req.GetPageSize())
	for i, d := range all {
		c := s.difference(d)
		if !p.takes(c) {
			out.NextPageToken = formatToken(list, diffKey{To: upTo, Kind: all[i-1].Ref.Kind, Name: all[i-1].Ref.Name})
			break
		}
		out.Changes = append(out.Changes, c)
	}
	return out, nil
}

func (s adminService) difference(d revisions.Difference) *adminv1.ResourceChange {
	c := &adminv1.ResourceChange{Kind: d.Ref.Kind, Name: d.Ref.Name, Action: adminv1.ChangeAction_CHANGE_ACTION_UPDATED}
	switch {
	case d.Before == nil:
		c.Action = adminv1.ChangeAction_CHANGE_ACTION_CREATED
	case d.After == nil:
		c.Action = adminv1.ChangeAction_CHANGE_ACTION_DELETED
	}
	setFields(c, s.fields.Diff(d.Before, d.After))
	return c
}

// maxFields bounds how many fields of a change are listed.
const maxFields = 1000

func setFields(c *adminv1.ResourceChange, fields []*adminv1.FieldChange) {
	c.Fields, c.FieldCount = first(fields, maxFields), int32(len(fields))
}

// maxRollbacks bounds the drafts of one rollback: another write may land after
// each draft.
const maxRollbacks = 3

func (s adminService) Rollback(ctx context.Context, req *adminv1.RollbackRequest) (*adminv1.RollbackResponse, error) {
	var bad invalid.List
	if req.Revision == nil {
		bad.Add("revision", "must be set: the revision to roll back to; ListRevisions lists the revisions")
	}
	if req.GetOptions().GetCreateOnly() {
		bad.Add("options.create_only", "has no meaning for a rollback: leave it out")
	}
	if err := bad.Err(); err != nil {
		return nil, err
	}
	options := proto.CloneOf(req.GetOptions())
	if options == nil {
		options = &adminv1.WriteOptions{}
	}
	options.Comment = cmp.Or(options.Comment, fmt.Sprintf("back to revision %d", req.GetRevision()))
	for try := 1; ; try++ {
		edit, err := s.gateway.RollbackEdit(req.GetRevision())
		if err != nil {
			return nil, err
		}
		base := *edit.ExpectedRevision
		stale := req.ExpectedRevision != nil && *req.ExpectedRevision != base
		if stale {
			// A stale revision is rejected unless the rollback changes nothing. Then it may
			// be a retry after a lost response.
			edit.ExpectedRevision = req.ExpectedRevision
		}
		_, change, err := s.write(ctx, edit, options)
		if err == nil && (!stale || change.GetRevision() == base) {
			return &adminv1.RollbackResponse{Change: change}, nil
		}
		if err == nil { // nothing was changed, but the edit was drafted for an older revision
			err = invalid.Errorf(invalid.Conflict, "expected_revision", "is %d, but the live revision is %d: read it again and redo the change", *req.ExpectedRevision, change.GetRevision())
		}
		faults, ok := errors.AsType[*invalid.Error](err)
		overtaken := ok && faults.Worst() == invalid.Conflict && s.gateway.State().Revision() != base
		if !overtaken || req.ExpectedRevision != nil || try == maxRollbacks {
			return nil, err
		}
	}
}

// maxFieldBytes bounds the changed fields in the answer of a dry run, in bytes: many gRPC
// clients reject messages above 4 MiB.
const maxFieldBytes = 3 << 20

// addFields adds to the answer of a dry run which fields would change.
func (s adminService) addFields(change *adminv1.Change, res *store.Result) {
	size, omitted := 0, 0
	if changes := change.GetChanges(); len(changes) == 1 {
		// The answer of a put holds the resource too.
		if r := res.State.Get(changes[0].GetKind(), changes[0].GetName()); r != nil {
			size = proto.Size(r)
		}
	}
	for _, c := range change.GetChanges() {
		if c.GetAction() == adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED {
			continue
		}
		fields := s.fields.Diff(res.Base.Get(c.GetKind(), c.GetName()), res.State.Get(c.GetKind(), c.GetName()))
		n := fielddiff.Size(first(fields, maxFields))
		if size+n > maxFieldBytes {
			omitted++
			continue
		}
		size += n
		setFields(c, fields)
	}
	if omitted > 0 {
		change.Warnings = append(change.Warnings, &adminv1.Warning{
			Code: adminv1.WarningCode_WARNING_CODE_MORE, Message: fmt.Sprintf("the changed fields of %d resources are left out: the answer would be too large", omitted),
		})
	}
}

// confirmWithin is 0 if it is not set.
var confirmWithin = durationField{path: "options.confirm_within", example: "120s", least: time.Second, most: 24 * time.Hour}

func (s adminService) Confirm(ctx context.Context, req *adminv1.ConfirmRequest) (*adminv1.ConfirmResponse, error) {
	r, err := s.gateway.Confirm(ctx, req.GetRevision(), originOf(ctx))
	if err != nil {
		return nil, err
	}
	return &adminv1.ConfirmResponse{Revision: r}, nil
}
