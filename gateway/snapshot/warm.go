package snapshot

import (
	"fmt"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A warmUse is how an upstream with pool.warm is used.
type warmUse struct {
	tcp, http bool
	by        []usedBy // of HTTP
}

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
	uses := map[*liveUpstream]*warmUse{}
	for _, u := range j.next.upstreams {
		if u.msg.GetPool().GetWarm() > 0 {
			uses[u] = &warmUse{}
		}
	}
	if len(uses) == 0 {
		return
	}
	for _, r := range j.state.List(adminv1.Kind_KIND_LISTENER) {
		l := j.next.listeners[r.GetName()]
		note := func(u *liveUpstream, by usedBy) {
			switch use := uses[u]; {
			case use == nil:
			case l.Protocol == adminv1.Protocol_PROTOCOL_HTTP:
				use.http, use.by = true, append(use.by, by)
			default:
				use.tcp = true
			}
		}
		note(l.uses.upstream, usedBy{store.RefOf(l.msg), "upstream"})
		for _, r := range l.uses.routes {
			for i, u := range r.upstreams {
				note(u, usedBy{store.RefOf(r.msg), invalid.Path("forward.upstreams").Index(i).Field("name")})
			}
		}
	}
	for _, r := range j.state.List(adminv1.Kind_KIND_UPSTREAM) {
		u := j.next.upstreams[r.GetName()]
		use := uses[u]
		if use == nil || use.tcp || !use.http {
			continue
		}
		warned := map[usedBy]bool{} // a route may belong to several listeners
		for _, by := range append([]usedBy{{store.RefOf(u.msg), "pool.warm"}}, use.by...) {
			if warned[by] || !j.draft.Puts(by.ref) {
				continue
			}
			warned[by] = true
			j.bad.Warned(invalid.Warning{Code: warnNoEffect, Field: j.draft.Path(by.ref).Join(string(by.at)), Message: fmt.Sprintf(
				"upstream %q has pool.warm, which is for TCP listeners, and only HTTP listeners use it: its connections are never used", u.msg.GetName())})
			if by.at == "pool.warm" {
				break // one warning at the upstream is enough
			}
		}
	}
}
