package snapshot

import (
	"maps"
	"slices"

	"github.com/drawbridge-gateway/drawbridge/gateway/ordered"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A worklist holds the resources that a compile looks at: those that the edit names or
// changes, those that are down, and those that use an object which the compile
// replaces. The new snapshot takes all other resources from the previous one.
type worklist struct {
	names map[adminv1.Kind]map[string]bool

	// certificates and bundles are the names of replaced objects; routes holds the
	// replaced routes of each listener, nil for those that it lost.
	certificates, bundles map[string]bool
	routes                map[string]map[string]*liveRoute
}

func (w *worklist) add(ref store.Ref) {
	if w.names[ref.Kind] == nil {
		w.names[ref.Kind] = map[string]bool{}
	}
	w.names[ref.Kind][ref.Name] = true
}

// replaces reports whether one of the names is among the replaced ones.
func (w *worklist) replaces(replaced map[string]bool, names []string) bool {
	return len(replaced) > 0 && slices.ContainsFunc(names, func(name string) bool { return replaced[name] })
}

// newWorklist returns the resources that are known to need work before the
// compile starts.
func (j *job) newWorklist() *worklist {
	w := &worklist{
		names:        map[adminv1.Kind]map[string]bool{},
		certificates: map[string]bool{}, bundles: map[string]bool{}, routes: map[string]map[string]*liveRoute{},
	}
	for _, c := range j.draft.Changes() {
		w.add(store.Ref{Kind: c.Kind, Name: c.Name})
	}
	for _, ref := range j.state.Changed(j.prev.State()) {
		w.add(ref)
		if j.partnerChanged(ref) {
			for user := range j.state.Users(ref) {
				if user.Kind == adminv1.Kind_KIND_ROUTE {
					w.add(user)
				}
			}
		}
	}
	for _, p := range j.prev.Problems() {
		w.add(p.Ref)
	}
	return w
}

// compileChanged compiles only what the edit can affect. It returns false if it found
// a fault or cannot decide. Then compileAll starts again from the beginning.
func (j *job) compileChanged() bool {
	j.work = j.newWorklist()
	j.next.system = j.prev.system
	j.next.bundles = build(j, adminv1.Kind_KIND_TRUST_BUNDLE, j.prev.bundles, j.bundle, func(a, b *bundle) bool {
		return a.trust == b.trust && a.down == b.down
	})
	j.next.certificates = build(j, adminv1.Kind_KIND_CERTIFICATE, j.prev.certificates, j.certificate, func(a, b *certificate) bool {
		return a.live == b.live && a.down == b.down
	})
	j.next.upstreams = build(j, adminv1.Kind_KIND_UPSTREAM, j.prev.upstreams, j.upstream, func(a, b *liveUpstream) bool {
		return a.live == b.live && a.down == b.down
	})
	j.next.routes = build(j, adminv1.Kind_KIND_ROUTE, j.prev.routes, j.route, func(a, b *liveRoute) bool { return a == b })
	if j.bad.Len() > 0 {
		return false
	}
	if !j.needs.None() {
		return true // the caller gathers the missing material and compiles again
	}
	j.sortRoutes()
	j.compileListeners(nil)
	j.finish()
	return j.bad.Len() == 0 && !j.undecided
}

// build compiles the resources of a kind that are on the worklist, or all. compile
// returns the previous object if it has not changed. same reports that the users of an
// object need no compile.
func build[R store.Resource, L interface {
	comparable
	*bundle | *certificate | *liveUpstream | *liveRoute | *Listener
}](j *job, k adminv1.Kind, prev ordered.Map[L], compile func(R) L, same func(a, b L) bool) ordered.Map[L] {
	changes := map[string]L{}
	if j.work == nil {
		for _, r := range j.state.List(k) {
			changes[r.GetName()] = compile(r.(R))
		}
		return ordered.Collect(changes)
	}
	for _, name := range slices.Sorted(maps.Keys(j.work.names[k])) {
		ref := store.Ref{Kind: k, Name: name}
		before := prev.Get(name)
		var now L
		if r := j.state.Get(k, name); r != nil {
			now = compile(r.(R))
		} else {
			j.report(&report{ref: ref})
		}
		if now == before {
			continue
		}
		changes[name] = now
		if before == nil || now == nil || !same(before, now) {
			j.replaced(ref)
		}
	}
	return prev.With(changes)
}

// sortRoutes records the replaced routes of each listener, and puts the listener on
// the worklist.
func (j *job) sortRoutes() {
	set := func(r, becomes *liveRoute) {
		if r == nil {
			return
		}
		for _, l := range r.msg.GetListeners() {
			if j.work.routes[l] == nil {
				j.work.routes[l] = map[string]*liveRoute{}
				j.work.add(store.Ref{Kind: adminv1.Kind_KIND_LISTENER, Name: l})
			}
			j.work.routes[l][r.msg.GetName()] = becomes
		}
	}
	for _, r := range ordered.Differ(j.prev.routes, j.next.routes) {
		set(r[0], nil)
		set(r[1], r[1])
	}
}

// replaced puts the users of a replaced object on the worklist.
func (j *job) replaced(ref store.Ref) {
	switch ref.Kind {
	case adminv1.Kind_KIND_CERTIFICATE:
		j.work.certificates[ref.Name] = true
	case adminv1.Kind_KIND_TRUST_BUNDLE:
		j.work.bundles[ref.Name] = true
	}
	for user := range j.state.Users(ref) {
		j.work.add(user)
	}
}

// unlessSame returns prev if same is true, else next. The two may differ only in
// their messages, and same says that the messages are equal.
func unlessSame[L any](prev, next *L, same bool) *L {
	if same {
		return prev
	}
	return next
}
