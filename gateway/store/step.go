package store

import (
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Step is the part of a revision that changes resources. Unlike an Edit it was checked
// when another gateway made it: its resources have their etags and revisions.
type Step struct {
	Revision int64
	Puts     []Resource
	Deletes  []Ref
}

// Advance returns the state after the step. It takes ownership of the step's resources.
func (s *State) Advance(step Step) *State {
	changed := map[adminv1.Kind]map[string]Resource{}
	set := func(ref Ref, r Resource) {
		if changed[ref.Kind] == nil {
			changed[ref.Kind] = map[string]Resource{}
		}
		changed[ref.Kind][ref.Name] = r
	}
	for _, ref := range step.Deletes {
		set(ref, nil)
	}
	for _, r := range step.Puts {
		set(RefOf(r), r)
	}
	next := s.with(changed)
	next.revision = step.Revision
	return next
}

// Step returns the part of the draft's revision that changes resources.
func (d *Draft) Step() Step {
	step := Step{Revision: d.next.revision}
	for _, c := range d.changes {
		switch c.Action {
		case adminv1.ChangeAction_CHANGE_ACTION_DELETED:
			step.Deletes = append(step.Deletes, Ref{c.Kind, c.Name})
		case adminv1.ChangeAction_CHANGE_ACTION_CREATED, adminv1.ChangeAction_CHANGE_ACTION_UPDATED:
			step.Puts = append(step.Puts, d.next.Get(c.Kind, c.Name))
		}
	}
	return step
}

// Follow drafts next, a state that another gateway made and checked, as the state after s.
// The draft keeps the etags and revisions of next.
func (s *State) Follow(next *State) *Draft {
	d := &Draft{base: s, next: next, followed: true, at: map[Ref]int{}, paths: map[Ref]invalid.Path{}, stale: map[Ref]invalid.Fault{}}
	for _, ref := range next.Changed(s) {
		action := adminv1.ChangeAction_CHANGE_ACTION_UPDATED
		switch was, is := s.Get(ref.Kind, ref.Name), next.Get(ref.Kind, ref.Name); {
		case is == nil:
			action = adminv1.ChangeAction_CHANGE_ACTION_DELETED
		case was == nil:
			action = adminv1.ChangeAction_CHANGE_ACTION_CREATED
		case proto.Equal(was, is): // the same message, decoded twice
			continue
		}
		d.record(ref, invalid.Path(KindName(ref.Kind)).Key(ref.Name), action)
	}
	return d
}
