package revisions

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Record describes one revision. The record and everything in it are immutable.
type Record struct {
	// Revision holds the caller, the method and the comment of the revision.
	Revision *adminv1.Revision

	// Priors are the resources that the revision changed, in their previous state.
	Priors []Prior

	// Pending is stored until the revision is confirmed. Nil: the revision needs
	// no confirmation.
	Pending *adminv1.Pending
}

// A Prior is the state of a resource before a revision changed it.
type Prior struct {
	Ref      store.Ref
	Resource store.Resource // includes secrets; nil: the resource did not exist
	Files    string         // digest of the files that the resource was built from; "": no files
}

// NewRecord returns the record of the revision that d makes by the edit e. files returns
// the digest of the files that a resource was built from before the revision.
func NewRecord(d *store.Draft, e store.Edit, now time.Time, files func(store.Ref) string) *Record {
	head := &adminv1.Revision{
		Revision:   d.State().Revision(),
		CommitTime: timestamppb.New(now),
		Principal:  e.Origin.Principal,
		Transport:  e.Origin.Transport,
		Method:     e.Origin.Method,
		Comment:    e.Comment,
	}
	if head.Principal == "" {
		head.Principal, head.Transport = "gateway", adminv1.Transport_TRANSPORT_INTERNAL
	}
	if e.Rollback != nil {
		head.RollbackTo = &e.Rollback.Revision
	}
	r := &Record{Revision: head}
	if e.ConfirmWithin > 0 {
		head.ExpireTime = timestamppb.New(now.Add(e.ConfirmWithin))
		r.Pending = &adminv1.Pending{
			Revision: head.Revision, ExpireTime: head.ExpireTime, RollbackTo: d.Base().Revision(), Principal: head.Principal, Comment: head.Comment,
		}
	}
	for _, c := range d.Changes() {
		if c.Action == adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED {
			continue
		}
		head.Changes = append(head.Changes, &adminv1.ResourceChange{Kind: c.Kind, Name: c.Name, Action: c.Action})
		p := Prior{Ref: store.Ref{Kind: c.Kind, Name: c.Name}}
		if p.Resource = d.Base().Get(c.Kind, c.Name); p.Resource != nil {
			p.Files = files(p.Ref)
		}
		r.Priors = append(r.Priors, p)
	}
	head.ChangeCount = int32(len(head.Changes))
	return r
}
