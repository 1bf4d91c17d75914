package snapshot

import (
	"errors"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/ordered"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A liveRoute is a Route resource and the upstreams it forwards to.
type liveRoute struct {
	msg       *adminv1.Route
	upstreams []*liveUpstream
	problem   string // why the route is not served; "" if it is
	selector  store.Selector
	elsewhere bool // the route applies only to other gateways
}

// sameLive reports whether both have the same conditions and action.
func (r *liveRoute) sameLive(o *liveRoute) bool {
	return r.problem == o.problem && slices.EqualFunc(r.upstreams, o.upstreams, (*liveUpstream).sameLive) && sameInputs(r.msg, o.msg)
}

// passes reports whether the route's connections are passed through with their own
// TLS.
func (r *liveRoute) passes() bool {
	return slices.ContainsFunc(r.upstreams, (*liveUpstream).passes)
}

// newRoute begins the compile of a route and checks its settings.
func (j *job) newRoute(msg *adminv1.Route) (*liveRoute, *scope) {
	s := j.scope(msg)
	r := &liveRoute{msg: msg, selector: s.selector, elsewhere: s.elsewhere}
	for _, w := range msg.GetForward().GetUpstreams() {
		r.upstreams = append(r.upstreams, j.next.upstreams.Get(w.GetName()))
	}
	switch {
	case j.lenient || s.written() || s.wasDown() || j.prev.State().Get(s.ref.Kind, s.ref.Name) != store.Resource(msg):
		routeScope{s}.checkRoute(msg)
	case j.partnersChanged(msg):
		routeScope{s}.checkPartners(msg)
	}
	s.warnNoUpstream("forward.upstreams", r.upstreams...)
	return r, s
}

// route compiles a route for listeners whose tables are edited. The edit of a table
// finds ambiguous routes.
func (j *job) route(msg *adminv1.Route) *liveRoute {
	r, s := j.newRoute(msg)
	r.problem = s.close()
	before := j.prev.routes.Get(msg.GetName())
	if before != nil && before.msg == msg && before.problem == r.problem && slices.EqualFunc(r.upstreams, before.upstreams, (*liveUpstream).sameLive) {
		return before
	}
	return r
}

// allRoutes compiles every route and returns them by listener.
func (j *job) allRoutes() map[string]ordered.Map[*liveRoute] {
	byListener := map[string]map[string]*liveRoute{}
	conflicts := map[[2]string]bool{}
	all := map[string]*liveRoute{}
	scopes := map[string]*scope{}
	routes := j.state.List(adminv1.Kind_KIND_ROUTE)
	for _, r := range routes {
		lr, s := j.newRoute(r.(*adminv1.Route))
		name := r.GetName()
		all[name], scopes[name] = lr, s
		for _, l := range lr.msg.GetListeners() {
			if byListener[l] == nil {
				byListener[l] = map[string]*liveRoute{}
			}
			byListener[l][name] = lr
		}
	}
	out := map[string]ordered.Map[*liveRoute]{}
	for _, listener := range slices.Sorted(maps.Keys(byListener)) {
		out[listener] = ordered.Collect(byListener[listener])
		if j.tableChanged(listener, out[listener]) {
			j.checkConflicts(out[listener].Values(), conflicts, scopes)
		}
	}
	for _, r := range routes {
		all[r.GetName()].problem = scopes[r.GetName()].close()
	}
	j.next.routes = ordered.Collect(all)
	return out
}

// tableChanged reports whether a listener's routes have changed, or may still be
// ambiguous.
func (j *job) tableChanged(listener string, routes ordered.Map[*liveRoute]) bool {
	prev := j.prev.listeners.Get(listener)
	return prev == nil || prev.Down != "" || !sameRoutes(routes, prev.uses.routes, func(a, b *liveRoute) bool { return sameInputs(a.msg, b.msg) })
}

// elsewhere reports whether one of the routes applies only to other gateways.
func elsewhere(routes ordered.Map[*liveRoute]) bool {
	for _, r := range routes.All() {
		if r.elsewhere {
			return true
		}
	}
	return false
}

// sameRoutes reports whether both have the same routes, compared with same.
func sameRoutes(a, b ordered.Map[*liveRoute], same func(a, b *liveRoute) bool) bool {
	for _, r := range ordered.Differ(a, b) {
		if r[0] == nil || r[1] == nil || !same(r[0], r[1]) {
			return false
		}
	}
	return true
}

func (s routeScope) checkRoute(msg *adminv1.Route) {
	if len(msg.GetListeners()) == 0 {
		s.Add("listeners", "must name at least one listener")
	}
	for i, name := range msg.GetListeners() {
		if slices.Contains(msg.GetListeners()[:i], name) {
			s.Add(invalid.Path("listeners").Index(i), "is %q, which is in the list twice", name)
		}
		s.checkListener(msg, name)
	}
	if _, err := route.New([]route.Rule[*liveRoute]{rule[*liveRoute](msg, nil)}); err != nil {
		for _, e := range unwrap(err) {
			var re *route.RuleError
			if errors.As(e, &re) {
				s.Add(invalid.Path("match").Field(re.Field), "%v", re.Err)
			} else {
				s.Add("match", "%v", e)
			}
		}
	}
	switch a := msg.GetAction().(type) {
	case *adminv1.Route_Forward:
		s.checkForward(a.Forward)
		s.checkMix(msg)
		s.rewrite(msg)
	case *adminv1.Route_Redirect:
		s.checkRedirect(a.Redirect)
	case *adminv1.Route_Respond:
		s.checkRespond(a.Respond)
	default:
		s.Add("forward", "forward, redirect or respond must be set")
	}
	s.headerRules("request_headers", msg.GetRequestHeaders(), false)
	s.headerRules("response_headers", msg.GetResponseHeaders(), true)
}

// shareOf returns an upstream's share of a route's traffic, relative to the other
// upstreams.
func shareOf(u *adminv1.WeightedUpstream) int32 {
	if u.Weight == nil {
		return 1
	}
	return u.GetWeight()
}

func (s routeScope) checkForward(f *adminv1.Forward) {
	if len(f.GetUpstreams()) == 0 {
		s.Add("forward.upstreams", "must name at least one upstream")
	}
	seen := map[string]bool{}
	var sum int32
	for i, u := range f.GetUpstreams() {
		at := invalid.Path("forward.upstreams").Index(i)
		if seen[u.GetName()] {
			s.Add(at.Field("name"), "is %q, which is in the list twice", u.GetName())
		}
		seen[u.GetName()] = true
		if w := shareOf(u); s.limit(at.Field("weight"), w, maxWeight) > 0 {
			sum++
		}
	}
	if len(f.GetUpstreams()) > 0 && sum == 0 {
		s.Add("forward.upstreams", "must give at least one upstream a weight above 0: an upstream of weight 0 takes no traffic")
	}
	s.duration("forward.timeout", f.GetTimeout())
	s.duration("forward.total_timeout", f.GetTotalTimeout())
	s.retry(f)
}

var redirectCodes = []int32{301, 302, 303, 307, 308}

var redirectHost = regexp.MustCompile(`^[^/?#@\s\\]+$`)

func (s routeScope) checkRedirect(r *adminv1.Redirect) {
	if c := r.GetCode(); r.Code != nil && !slices.Contains(redirectCodes, c) {
		s.Add("redirect.code", "is %d; it must be 301, 302, 303, 307 or 308", c)
	}
	if sch := r.GetScheme(); sch != "" && sch != "http" && sch != "https" {
		s.Add("redirect.scheme", "is %q; it must be http or https", sch)
	}
	if h := r.GetHost(); h != "" {
		if _, err := route.NormalizeHost(h); err != nil || !redirectHost.MatchString(h) {
			s.Add("redirect.host", "is %q; it must be a host name or IP address, with or without a port", h)
		}
	}
	if p := r.GetPath(); p != "" && (p[0] != '/' || strings.ContainsFunc(p, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '\\' })) {
		s.Add("redirect.path", "is %q; it must begin with / and be escaped as in a URL", p)
	}
	if r.GetScheme() == "" && r.GetHost() == "" && r.GetPath() == "" {
		s.Add("redirect", "must change the scheme, the host or the path, or it would cause a redirect loop")
	}
}

func (s routeScope) checkRespond(r *adminv1.Respond) {
	if c := r.GetCode(); r.Code != nil && (c < 200 || c > 599) {
		s.Add("respond.code", "is %d; it must be from 200 to 599", c)
	} else if (c == http.StatusNoContent || c == http.StatusNotModified) && r.GetBody() != "" {
		s.Add("respond.body", "must be empty: a response with code %d has no body", c)
	}
	if n := len(r.GetBody()); n > 65536 {
		s.Add("respond.body", "has %d bytes; it must have at most 65536", n)
	}
	if err := policy.CheckFieldValue(r.GetContentType()); err != nil {
		s.Add("respond.content_type", "%v", err)
	}
}

// rewrite checks a route's rewrite of paths and returns it in l7's form. Nil means
// no rewrite.
func (s routeScope) rewrite(msg *adminv1.Route) *route.Rewrite {
	const at = invalid.Path("forward.rewrite")
	r := msg.GetForward().GetRewrite()
	if r == nil {
		return nil
	}
	switch k := r.GetKind().(type) {
	case *adminv1.Rewrite_Prefix:
		matched, ok := msg.GetMatch().GetPath().GetKind().(*adminv1.PathMatch_Prefix)
		if !ok {
			s.Add(at.Field("prefix"), "needs match.path.prefix, which it replaces")
			return nil
		}
		if route.CheckPath(route.Path{Kind: route.PathPrefix, Value: matched.Prefix}) != nil {
			return nil // the fault is reported at match.path
		}
		w, err := route.RewritePrefix(matched.Prefix, k.Prefix)
		if err != nil {
			s.Add(at.Field("prefix"), "%v", err)
		}
		return w
	case *adminv1.Rewrite_Regex:
		w, err := route.RewriteRegex(k.Regex.GetPattern(), k.Regex.GetSubstitution())
		var bad *route.SubstitutionError
		switch {
		case errors.As(err, &bad):
			s.Add(at.Field("regex.substitution"), "%v", err)
		case err != nil:
			s.Add(at.Field("regex.pattern"), "%v", err)
		}
		return w
	case *adminv1.Rewrite_Path:
		w, err := route.RewritePath(k.Path)
		if err != nil {
			s.Add(at.Field("path"), "%v", err)
		}
		return w
	}
	s.Add(at, "prefix, regex or path must be set")
	return nil
}

// headerRules checks header rules, of requests or of responses, and returns them in
// l7's form.
func (s routeScope) headerRules(p invalid.Path, h *adminv1.HeaderRules, response bool) policy.HeaderRules {
	check := func(at invalid.Path, err error) {
		if err != nil {
			s.Add(at, "%v", err)
		}
	}
	fields := func(p invalid.Path, in []*adminv1.HeaderValue) []policy.HeaderValue {
		var out []policy.HeaderValue
		for i, v := range in {
			check(p.Index(i).Field("name"), policy.CheckFieldName(v.GetName()))
			value, err := policy.ParseValue(v.GetValue(), response)
			check(p.Index(i).Field("value"), err)
			out = append(out, policy.HeaderValue{Name: v.GetName(), Value: value})
		}
		return out
	}
	for i, name := range h.GetRemove() {
		check(p.Field("remove").Index(i), policy.CheckFieldName(name))
	}
	return policy.HeaderRules{Remove: h.GetRemove(), Set: fields(p.Field("set"), h.GetSet()), Add: fields(p.Field("add"), h.GetAdd())}
}

// checkConflicts finds routes of one listener that are ambiguous. It reports the
// fault at the route being written.
func (j *job) checkConflicts(routes []*liveRoute, known map[[2]string]bool, scopes map[string]*scope) {
	rules := make([]route.Rule[*liveRoute], len(routes))
	for i, r := range routes {
		rules[i] = rule(r.msg, r)
	}
	err := route.Conflicts(rules, func(i, j int) bool { return routes[i].selector.Disjoint(routes[j].selector) })
	for _, e := range unwrap(err) {
		var c *route.ConflictError
		var r *route.RuleError
		if errors.As(e, &r) {
			// The checks of single rules came before. These are faults of the rules
			// together.
			if s := scopes[r.Rule]; s.Len() == 0 {
				s.Add(invalid.Path("match").Field(r.Field), "%v", r.Err)
			}
			continue
		}
		if !errors.As(e, &c) || known[c.Rules] {
			continue
		}
		known[c.Rules] = true
		at, with := scopes[c.Rules[1]], c.Rules[0]
		if first := scopes[c.Rules[0]]; first.written() && !at.written() {
			at, with = first, c.Rules[1]
		}
		at.Add("match", "is ambiguous with route %q: both match %s, and neither is more specific", with, c.Conditions)
	}
}

func unwrap(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return many.Unwrap()
	}
	if err != nil {
		return []error{err}
	}
	return nil
}

// rule returns a route's conditions.
func rule[T any](msg *adminv1.Route, value T) route.Rule[T] {
	m := msg.GetMatch()
	r := route.Rule[T]{Name: msg.GetName(), Hosts: m.GetHosts(), Methods: m.GetMethods(), Value: value}
	switch p := m.GetPath().GetKind().(type) {
	case *adminv1.PathMatch_Prefix:
		r.Path = route.Path{Kind: route.PathPrefix, Value: p.Prefix}
	case *adminv1.PathMatch_Exact:
		r.Path = route.Path{Kind: route.PathExact, Value: p.Exact}
	case *adminv1.PathMatch_Regex:
		r.Path = route.Path{Kind: route.PathRegex, Value: p.Regex}
	}
	for _, h := range m.GetHeaders() {
		r.Headers = append(r.Headers, route.Header{Name: h.GetName(), Exact: h.Exact})
	}
	if id := m.GetClientIdentity(); id != nil {
		r.Client = &route.Identity{SANs: id.GetSubjectAltNames(), Fingerprints: id.GetSha256Fingerprints(), Issuer: id.GetIssuer()}
	}
	if d := msg.GetRedirect(); d != nil && d.GetHost() == "" && d.GetPath() == "" {
		r.NotScheme = d.GetScheme() // otherwise the route would cause a redirect loop
	}
	return r
}

// tcpRoutes returns a TCP listener's table, or nil if it has no routes.
func (s listenerScope) tcpRoutes(l, prev *Listener) *route.Table[*l4.Target] {
	var before *route.Table[*l4.Target]
	if prev != nil && prev.tcp != nil {
		before = prev.tcp.Routes
	}
	return table(s, before, l, prev, func(r *liveRoute) *l4.Target {
		return &l4.Target{
			Route:     r.msg.GetName(),
			Upstreams: upstream.NewSplit(split(r, func(u *liveUpstream) *upstream.Upstream { return u.live })),
			Attempts:  attempts(r.msg.GetForward().GetRetry()),

			Passthrough: r.passes(),
		}
	})
}

// httpRoutes returns an HTTP listener's table, or nil if it has no routes.
func (s listenerScope) httpRoutes(l, prev *Listener) *route.Table[*l7.Action] {
	var before *route.Table[*l7.Action]
	if prev != nil && prev.http != nil {
		before = prev.http.Routes
	}
	return table(s, before, l, prev, s.job.action)
}

// table returns the table of l's routes, or nil if it has none. Where prev has a
// table, only the routes that differ from prev's are compiled.
func table[T any](s listenerScope, before *route.Table[T], l, prev *Listener, value func(*liveRoute) T) *route.Table[T] {
	if l.uses.routes.Len() == 0 {
		return nil
	}
	var t *route.Table[T]
	var err error
	if before != nil && s.job.work != nil {
		var remove, add []route.Rule[T]
		changed := false
		for _, r := range ordered.Differ(prev.uses.routes, l.uses.routes) {
			if r[0] != nil && r[1] != nil && r[0].sameLive(r[1]) {
				continue
			}
			changed = changed || r[1] != nil
			var none T
			if r[0] != nil && !r[0].elsewhere {
				remove = append(remove, rule(r[0].msg, none))
			}
			if r[1] != nil && !r[1].elsewhere {
				add = append(add, rule(r[1].msg, value(r[1])))
			}
		}
		if changed && elsewhere(l.uses.routes) {
			s.job.undecided = true // the table does not show whether routes are ambiguous at other gateways
		}
		if len(remove)+len(add) == 0 {
			return before
		}
		t, err = before.Edit(remove, add)
	} else {
		rules := make([]route.Rule[T], 0, l.uses.routes.Len())
		for _, r := range l.uses.routes.All() {
			if !r.elsewhere {
				rules = append(rules, rule(r.msg, value(r)))
			}
		}
		s.job.undecided = s.job.undecided || s.job.work != nil && len(rules) < l.uses.routes.Len()
		t, err = route.New(rules)
	}
	if err != nil && (s.job.work != nil || s.job.bad.Len() == 0 && s.Len() == 0) {
		// The checks of the routes missed this fault, or were skipped because the table
		// was only edited. Without a table, the traffic of the routes would go to the
		// wrong upstream.
		s.Add("", "its routes cannot be served: %v", err)
		s.job.undecided = s.job.work != nil
	}
	return t
}

func split[T any](r *liveRoute, live func(*liveUpstream) T) []upstream.Weighted[T] {
	var out []upstream.Weighted[T]
	for i, w := range r.msg.GetForward().GetUpstreams() {
		if u := r.upstreams[i]; u != nil {
			out = append(out, upstream.Weighted[T]{Value: live(u), Weight: int(shareOf(w))})
		}
	}
	return out
}

// action returns the action of a checked route.
func (j *job) action(r *liveRoute) *l7.Action {
	s := routeScope{j.scope(r.msg)} // the faults of the route were reported before
	a := &l7.Action{
		Route:           r.msg.GetName(),
		RequestHeaders:  s.headerRules("request_headers", r.msg.GetRequestHeaders(), false),
		ResponseHeaders: s.headerRules("response_headers", r.msg.GetResponseHeaders(), true),
	}
	switch {
	case r.msg.GetForward() != nil:
		a.Forward = &l7.Forward{
			Backs:   upstream.NewSplit(split(r, func(u *liveUpstream) *backs.Pools { return u.back })),
			Rewrite: s.rewrite(r.msg),
			Timeout: s.duration("forward.timeout", r.msg.GetForward().GetTimeout()),

			TotalTimeout: s.duration("forward.total_timeout", r.msg.GetForward().GetTotalTimeout()),
			Retry:        s.retry(r.msg.GetForward()),
		}
	case r.msg.GetRedirect() != nil:
		d := r.msg.GetRedirect()
		a.Redirect = &l7.Redirect{Code: int(d.GetCode()), Scheme: d.GetScheme(), Host: d.GetHost(), Path: d.GetPath()}
	case r.msg.GetRespond() != nil:
		d := r.msg.GetRespond()
		a.Respond = &l7.Respond{Code: int(d.GetCode()), Body: d.GetBody(), ContentType: d.GetContentType()}
	}
	return a
}
