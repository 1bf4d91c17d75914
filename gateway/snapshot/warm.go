package snapshot

import (
	"fmt"
	"maps"
	"slices"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/ordered"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A usedBy is a field that names an upstream.
type usedBy struct {
	ref store.Ref
	at  invalid.Path
}

// warnOfWarm warns of an upstream that keeps warm connections although only HTTP
// listeners use it: warm connections serve TCP listeners, and HTTP listeners have
// their own pools. It warns when the upstream or one of its users is written.
func (j *job) warnOfWarm() {
	if j.draft == nil {
		return
	}
	warm := map[string]*liveUpstream{} // warm upstreams that the draft puts or uses
	note := func(name string) {
		if u := j.next.upstreams.Get(name); u != nil && u.msg.GetPool().GetWarm() > 0 {
			warm[name] = u
		}
	}
	for _, c := range j.draft.Changes() {
		switch r := j.state.Get(c.Kind, c.Name).(type) {
		case *adminv1.Upstream:
			note(r.GetName())
		case *adminv1.Listener:
			note(r.GetUpstream())
		case *adminv1.Route:
			for _, u := range r.GetForward().GetUpstreams() {
				note(u.GetName())
			}
		}
	}
	for name, u := range ordered.Collect(warm).All() {
		by, tcp := j.warmUsers(name)
		if tcp || len(by) == 0 {
			continue
		}
		warned := map[usedBy]bool{} // a route may belong to several listeners
		for _, by := range append([]usedBy{{store.RefOf(u.msg), "pool.warm"}}, by...) {
			if warned[by] || !j.draft.Puts(by.ref) {
				continue
			}
			warned[by] = true
			j.bad.AddWarning(invalid.Warning{Code: warnNoEffect, Field: j.draft.Path(by.ref).Join(string(by.at)), Message: fmt.Sprintf(
				"upstream %q has pool.warm, which is for TCP listeners, and only HTTP listeners use it: its connections are never used", u.msg.GetName())})
			if by.at == "pool.warm" {
				break // one warning at the upstream is enough
			}
		}
	}
}

// warmUsers returns the fields by which HTTP listeners use the upstream, in the order
// of the listeners, or reports that a TCP listener uses it.
func (j *job) warmUsers(name string) (by []usedBy, tcp bool) {
	byListener := map[string][]usedBy{}
	for user := range j.state.Users(upstreamRef(name)) {
		switch r := j.state.Get(user.Kind, user.Name).(type) {
		case *adminv1.Listener:
			byListener[r.GetName()] = append(byListener[r.GetName()], usedBy{user, "upstream"})
		case *adminv1.Route:
			for i, u := range r.GetForward().GetUpstreams() {
				for _, l := range r.GetListeners() {
					if u.GetName() == name {
						byListener[l] = append(byListener[l], usedBy{user, invalid.Path("forward.upstreams").Index(i).Field("name")})
					}
				}
			}
		}
	}
	for _, l := range slices.Sorted(maps.Keys(byListener)) {
		switch live := j.next.listeners.Get(l); {
		case live == nil: // the reference dangles
		case live.Protocol == adminv1.Protocol_PROTOCOL_HTTP:
			by = append(by, byListener[l]...)
		default:
			return nil, true
		}
	}
	return by, false
}
