package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A State is the desired state as of one revision. It and the
// resources it returns are immutable. The zero value is an empty state at
// revision 0.
type State struct {
	revision    int64
	collections map[adminv1.Kind]*collection
}

// A collection holds the resources of one kind.
type collection struct {
	byName map[string]Resource
	sorted []Resource // by name
}

func newCollection(byName map[string]Resource) *collection {
	sorted := slices.SortedFunc(maps.Values(byName), func(a, b Resource) int {
		return strings.Compare(a.GetName(), b.GetName())
	})
	return &collection{byName, sorted}
}

// Restore returns the state that a durable store has read. It takes ownership of the
// resources. Two resources of one kind and name are an error.
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
	s := &State{revision: revision, collections: map[adminv1.Kind]*collection{}}
	for k, m := range byKind {
		s.collections[k] = newCollection(m)
	}
	return s, nil
}

// Revision returns the revision: 0 before the first change, and one more with
// each.
func (s *State) Revision() int64 { return s.revision }

// Get returns the resource, or nil if it does not exist.
func (s *State) Get(kind adminv1.Kind, name string) Resource {
	if c := s.collections[kind]; c != nil {
		if r, ok := c.byName[name]; ok {
			return r
		}
	}
	return nil
}

// List returns the resources of a kind in the order of their names. The caller
// must not modify the slice.
func (s *State) List(kind adminv1.Kind) []Resource {
	if c := s.collections[kind]; c != nil {
		return c.sorted
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

// Len returns how many resources of a kind there are.
func (s *State) Len(kind adminv1.Kind) int { return len(s.List(kind)) }

// Users returns, for each resource that others refer to, those resources in the order of
// All.
func (s *State) Users() map[Ref][]Ref {
	users := map[Ref][]Ref{}
	for _, r := range s.All() {
		from := RefOf(r)
		for _, u := range uses(r) {
			if known := users[u.ref]; len(known) == 0 || known[len(known)-1] != from {
				users[u.ref] = append(known, from)
			}
		}
	}
	return users
}
