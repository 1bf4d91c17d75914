package store

import (
	"fmt"
	"iter"
	"maps"
	"sync"

	"github.com/drawbridge-gateway/drawbridge/gateway/ordered"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A State is the desired state as of one revision. The State and its resources
// are immutable. The zero value is an empty state at revision 0.
type State struct {
	revision    int64
	collections map[adminv1.Kind]*collection
	users       userIndex
}

// A collection holds the resources of one kind. All revisions with the same
// resources of the kind share it.
type collection struct {
	byName ordered.Map[Resource]
	list   func() []Resource // sorted by name; computed by the first call
}

func newCollection(byName ordered.Map[Resource]) *collection {
	return &collection{byName, sync.OnceValue(byName.Values)}
}

// Restore returns a state with resources read from a durable store. It takes
// ownership of the resources. Two resources of one kind and name are an error.
func Restore(revision int64, resources []Resource) (*State, error) {
	byKind := map[adminv1.Kind]map[string]Resource{}
	for _, r := range resources {
		ref := RefOf(r)
		m := byKind[ref.Kind]
		if m == nil {
			m = map[string]Resource{}
			byKind[ref.Kind] = m
		}
		if _, dup := m[ref.Name]; dup {
			return nil, fmt.Errorf("%v exists twice", ref)
		}
		m[ref.Name] = r
	}
	s := (&State{revision: revision}).with(byKind)
	return s, nil
}

// with returns the state with changed resources. A nil resource removes the resource
// with its name.
func (s *State) with(changes map[adminv1.Kind]map[string]Resource) *State {
	next := &State{revision: s.revision, collections: map[adminv1.Kind]*collection{}}
	maps.Copy(next.collections, s.collections)
	references := userChanges{}
	for k, byName := range changes {
		for name, r := range byName {
			references.note(Ref{k, name}, s.Get(k, name), r)
		}
		next.collections[k] = newCollection(s.resources(k).With(byName))
	}
	next.users = s.users.with(references)
	return next
}

// resources returns the resources of a kind by name.
func (s *State) resources(k adminv1.Kind) ordered.Map[Resource] {
	if c := s.collections[k]; c != nil {
		return c.byName
	}
	return ordered.Map[Resource]{}
}

// Revision returns the revision: 0 before the first change, and one more with
// each change.
func (s *State) Revision() int64 { return s.revision }

// Get returns the resource, or nil if it does not exist.
func (s *State) Get(kind adminv1.Kind, name string) Resource { return s.resources(kind).Get(name) }

// List returns the resources of a kind in the order of their names. The caller
// must not modify the slice.
func (s *State) List(kind adminv1.Kind) []Resource {
	if c := s.collections[kind]; c != nil {
		return c.list()
	}
	return nil
}

// All returns every resource: kinds in the order of Kinds, each kind in the
// order of names.
func (s *State) All() []Resource {
	var all []Resource
	for _, k := range Kinds() {
		all = append(all, s.List(k)...)
	}
	return all
}

// From yields the resources of All from the given index on. Its cost does not depend on
// the index.
func (s *State) From(index int) iter.Seq[Resource] {
	return func(yield func(Resource) bool) {
		skip := index
		for _, k := range Kinds() {
			list := s.List(k)
			from := min(skip, len(list))
			skip -= from
			for _, r := range list[from:] {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// Len returns the number of resources of a kind.
func (s *State) Len(kind adminv1.Kind) int { return s.resources(kind).Len() }

// Changed returns the references of the resources whose messages differ between the
// two states, in the order of All. Its cost is proportional to the difference.
func (s *State) Changed(before *State) []Ref {
	var refs []Ref
	for _, k := range Kinds() {
		if s.collections[k] == before.collections[k] {
			continue
		}
		for name := range ordered.Differ(before.resources(k), s.resources(k)) {
			refs = append(refs, Ref{k, name})
		}
	}
	return refs
}
