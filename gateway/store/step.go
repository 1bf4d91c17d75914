package store

import (
	"time"

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

// A Followed is a state that another gateway of the fleet has committed.
type Followed struct {
	State    *State
	Instance string // identifies the fleet
	Pending  *adminv1.Pending
	Within   time.Duration // how long Pending may still wait

	// Updates lead to State, oldest first. Complete says that no update after the live
	// revision is missing.
	Updates  []Update
	Complete bool

	// Fresh reports whether State is later than what the gateway has committed or followed. Keep
	// makes State the last good copy. Both are called with the writer's lock.
	Fresh func() bool
	Keep  func()
}

// Edit returns the edit that makes the state live in place of the given one. Resources that
// cannot be built are down.
func (f *Followed) Edit(live *State) Edit {
	e := Edit{Follow: f, Force: true}
	for _, ref := range f.State.Changed(live) {
		at := invalid.Path(KindName(ref.Kind)).Key(ref.Name)
		if r := f.State.Get(ref.Kind, ref.Name); r != nil {
			e.Puts = append(e.Puts, Put{at, r})
		}
	}
	if n := len(f.Updates); n > 0 {
		e.Comment = f.Updates[n-1].Comment
	}
	return e
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
