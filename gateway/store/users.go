package store

import (
	"iter"
	"maps"
	"slices"
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/gateway/ordered"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A userIndex maps each used resource to the resources that refer to it. It is
// immutable.
type userIndex struct {
	users map[adminv1.Kind]ordered.Map[*userSet] // by the name of the used resource
}

// A userSet holds references, in the order of All.
type userSet struct{ ordered.Map[Ref] }

// userKey returns the key that orders ref in a userSet.
func userKey(ref Ref) string {
	return strconv.Itoa(slices.Index(Kinds(), ref.Kind)) + "/" + ref.Name
}

// Users yields the resources that refer to ref, in the order of All.
func (s *State) Users(ref Ref) iter.Seq[Ref] {
	return func(yield func(Ref) bool) {
		for _, user := range s.users.of(ref).All() {
			if !yield(user) {
				return
			}
		}
	}
}

// UserCount returns how many resources refer to ref.
func (s *State) UserCount(ref Ref) int { return s.users.of(ref).Len() }

// of returns the resources that refer to ref, by userKey.
func (x userIndex) of(ref Ref) ordered.Map[Ref] {
	if set := x.users[ref.Kind].Get(ref.Name); set != nil {
		return set.Map
	}
	return ordered.Map[Ref]{}
}

// userChanges maps each used resource to its changed users. A zero reference
// stands for a former user.
type userChanges map[Ref]map[string]Ref

// note records the references of a replaced resource. Both versions may be nil.
func (c userChanges) note(from Ref, before, after Resource) {
	key := userKey(from)
	set := func(to, user Ref) {
		if c[to] == nil {
			c[to] = map[string]Ref{}
		}
		c[to][key] = user
	}
	var old, now []useList
	if before != nil {
		old = uses(before)
	}
	if after != nil {
		now = uses(after)
	}
	if slices.EqualFunc(old, now, useList.same) {
		return
	}
	// Lists often differ only in the middle, so only the middle is compared.
	removed := map[Ref]bool{}
	for i, u := range old {
		for _, name := range between(u.names, namesAt(now, i, u.kind)) {
			removed[Ref{u.kind, name}] = true
			set(Ref{u.kind, name}, Ref{})
		}
	}
	for i, u := range now {
		for _, name := range between(u.names, namesAt(old, i, u.kind)) {
			set(Ref{u.kind, name}, from)
		}
		for _, name := range u.names { // a name may leave one list and stay in another
			if len(removed) > 0 && removed[Ref{u.kind, name}] {
				set(Ref{u.kind, name}, from)
			}
		}
	}
}

// with returns the index with the changes.
func (x userIndex) with(changes userChanges) userIndex {
	if len(changes) == 0 {
		return x
	}
	sets := map[adminv1.Kind]map[string]*userSet{}
	for to, users := range changes {
		set := userSet{x.of(to).With(users)}
		if sets[to.Kind] == nil {
			sets[to.Kind] = map[string]*userSet{}
		}
		sets[to.Kind][to.Name] = nil
		if set.Len() > 0 {
			sets[to.Kind][to.Name] = &set
		}
	}
	next := userIndex{users: map[adminv1.Kind]ordered.Map[*userSet]{}}
	maps.Copy(next.users, x.users)
	for k, byName := range sets {
		next.users[k] = next.users[k].With(byName)
	}
	return next
}

func (u useList) same(v useList) bool { return u.kind == v.kind && slices.Equal(u.names, v.names) }

// namesAt returns the names of the ith list, or nil if the list has another
// kind.
func namesAt(lists []useList, i int, k adminv1.Kind) []string {
	if i < len(lists) && lists[i].kind == k {
		return lists[i].names
	}
	return nil
}

// between returns the names without the common beginning and end of the two lists.
func between(names, others []string) []string {
	most := min(len(names), len(others))
	first := 0
	for first < most && names[first] == others[first] {
		first++
	}
	last := 0
	for last < most-first && names[len(names)-1-last] == others[len(others)-1-last] {
		last++
	}
	return names[first : len(names)-last]
}
