package snapshot

import (
	"fmt"
	"iter"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/ordered"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Listener is a compiled Listener resource. It is immutable.
type Listener struct {
	Name             string
	Protocol         adminv1.Protocol
	Network, Address string // in package net's form
	Configured       string // the address in the resource
	Down             string // why the listener must not be served; "" if it is up
	Unix             unixsocket.Options

	selector  store.Selector
	elsewhere bool // the listener applies only to other gateways

	port     string // the table of a TCP listener
	msg      *adminv1.Listener
	uses     listenerUses
	tls      *certs.Servers
	validity *validity.Policy // the policy for open connections; nil without TLS
	tcp      *l4.Table
	http     *l7.Table
	notes    notes
}

// listenerUses holds the live objects that a listener's table is built from.
type listenerUses struct {
	policies []*livePolicy // starts with the base; nil without TLS
	upstream *liveUpstream
	routes   ordered.Map[*liveRoute]
}

// upstreams yields every upstream that the traffic may reach, with its route. The route
// is nil for the listener's own upstream.
func (u listenerUses) upstreams() iter.Seq2[*liveRoute, *liveUpstream] {
	return func(yield func(*liveRoute, *liveUpstream) bool) {
		if u.upstream != nil && !yield(nil, u.upstream) {
			return
		}
		for r := range u.localRoutes() {
			for _, up := range r.upstreams {
				if up != nil && !yield(r, up) { // nil: the reference dangles, or the upstream applies only to other gateways
					return
				}
			}
		}
	}
}

// localRoutes yields the routes that apply to this gateway.
func (u listenerUses) localRoutes() iter.Seq[*liveRoute] {
	return func(yield func(*liveRoute) bool) {
		for _, r := range u.routes.All() {
			if !r.elsewhere && !yield(r) {
				return
			}
		}
	}
}

func (u listenerUses) equal(v listenerUses) bool {
	return slices.EqualFunc(u.policies, v.policies, (*livePolicy).sameUses) &&
		u.upstream.sameLive(v.upstream) && sameRoutes(u.routes, v.routes, (*liveRoute).sameLive)
}

// sameLive reports whether both handle traffic in the same way.
func (u *liveUpstream) sameLive(v *liveUpstream) bool {
	if u == nil || v == nil {
		return u == v
	}
	return u.live == v.live
}

// compileListeners compiles the listeners that are on the worklist, or all. routes are
// the routes by listener if all are compiled.
func (j *job) compileListeners(routes map[string]ordered.Map[*liveRoute]) {
	scopes := map[string]*scope{} // scopes of the compiled listeners, by name
	compiled := map[string]*Listener{}
	j.next.listeners = build(j, adminv1.Kind_KIND_LISTENER, j.prev.listeners, func(msg *adminv1.Listener) *Listener {
		name, s := msg.GetName(), j.scope(msg)
		scopes[name] = s
		itsRoutes := routes[name]
		if j.work != nil {
			itsRoutes = j.routesOf(name)
		}
		compiled[name] = j.listener(s, msg, itsRoutes)
		return compiled[name]
	}, func(a, b *Listener) bool { return true }) // no other resource uses a listener
	j.checkOverlaps(scopes)
	for _, name := range slices.Sorted(maps.Keys(scopes)) {
		s, l := scopes[name], compiled[name]
		if l == j.prev.listeners.Get(name) {
			s.close() // l is in use and must not change
			continue
		}
		l.notes = s.notes()
		if l.Down = s.close(); l.Down != "" || l.elsewhere {
			l.tcp, l.http = nil, nil
		}
	}
}

// routesOf returns the routes of a listener on the worklist.
func (j *job) routesOf(listener string) ordered.Map[*liveRoute] {
	var before ordered.Map[*liveRoute]
	if prev := j.prev.listeners.Get(listener); prev != nil {
		before = prev.uses.routes
	}
	return before.With(j.work.routes[listener])
}

func (j *job) listener(s *scope, msg *adminv1.Listener, routes ordered.Map[*liveRoute]) *Listener {
	prev := j.prev.listeners.Get(msg.GetName())
	next := &Listener{Name: msg.GetName(), msg: msg, Configured: msg.GetAddress(), Protocol: msg.GetProtocol(), selector: s.selector, elsewhere: s.elsewhere}
	var problem string
	if next.Network, next.Address, problem = listenAddress(msg.GetAddress()); problem != "" {
		s.Add("address", "%s", problem)
	}
	if next.Network == "tcp" {
		_, next.port, _ = net.SplitHostPort(next.Address)
	}
	next.uses.routes = routes
	if prev != nil && prev.Down == "" && j.work != nil {
		routes = ordered.Collect(j.work.routes[next.Name]) // only these routes can be down
	}
	for _, r := range routes.All() {
		// Without this route, the listener would send its traffic to another
		// upstream.
		if r.problem != "" && !r.elsewhere {
			s.Add("", "its route %q is down: %s", r.msg.GetName(), r.problem)
		}
	}
	if msg.GetUpstream() != "" {
		next.uses.upstream = j.next.upstreams.Get(msg.GetUpstream())
		s.warnNoUpstream("upstream", next.uses.upstream)
	}
	next.uses.policies = listenerScope{s}.usePolicies(next, prev)

	same := prev != nil && prev.Down == "" && s.Len() == 0 && sameInputs(prev.msg, msg)
	if same && prev.uses.equal(next.uses) {
		next.uses.policies = prev.uses.policies // including their Servers
		next.tls, next.tcp, next.http, next.Unix = prev.tls, prev.tcp, prev.http, prev.Unix
		next.validity = prev.validity
		s.reuse(prev.notes)
		return unlessSame(prev, next, prev.msg == msg && j.work != nil && len(j.work.routes[next.Name]) == 0)
	}
	if prev != nil && prev.Down == "" && s.Len() == 0 && prev.Protocol == next.Protocol && prev.msg.GetTls().GetStarttls() == msg.GetTls().GetStarttls() {
		next.reuseServers(prev)
	}
	listenerScope{s}.buildListener(next, prev)
	return next
}

// duplicates returns the indices of the names that occur earlier in the list.
func duplicates(names []string) map[int]bool {
	if len(names) < 2 {
		return nil
	}
	out := map[int]bool{}
	seen := make(map[string]bool, len(names))
	for i, name := range names {
		if seen[name] {
			out[i] = true
		}
		seen[name] = true
	}
	return out
}

func (s listenerScope) buildListener(l, prev *Listener) {
	msg := l.msg
	if msg.GetTls() != nil {
		s.buildServers(l)
		l.validity = s.revalidation(msg.GetTls().GetRevalidation())
		l.validity.Verifier = l.tls
		if prev != nil && prev.validity != nil && *prev.validity == *l.validity {
			l.validity = prev.validity
		}
	}
	handshake := s.duration("timeouts.handshake", msg.GetTimeouts().GetHandshake())
	idle := s.duration("timeouts.idle", msg.GetTimeouts().GetIdle())
	headerRead := s.duration("timeouts.header_read", msg.GetTimeouts().GetHeaderRead())
	trusted := s.proxies(msg.GetAcceptProxyProtocol())
	access := s.access(msg.GetAccess())
	linger := s.duration("tcp.linger", msg.GetTcp().GetLinger())
	age := s.age("tcp.max_connection_age", msg.GetTcp().GetMaxConnectionAge())
	l.Unix = s.unix(l.Network, msg.GetUnix())
	silent := msg.GetAccessLog() == adminv1.AccessLog_ACCESS_LOG_OFF

	switch msg.GetProtocol() {
	case adminv1.Protocol_PROTOCOL_TCP:
		if msg.GetHttp() != nil {
			s.Add("http", "must be left out: the listener's protocol is PROTOCOL_TCP")
		}
		if msg.GetTimeouts().GetHeaderRead() != nil {
			s.Add("timeouts.header_read", "must be left out: the listener's protocol is PROTOCOL_TCP")
		}
		l.tcp = &l4.Table{
			TLS: l.tls, Validity: l.validity, ProxyProtocol: trusted, Access: access,
			Starttls: s.starttls(l), StarttlsOptional: msg.GetTls().GetStarttlsOptional(),
			HandshakeTimeout: handshake, IdleTimeout: idle, Linger: linger, MaxAge: age, NoAccessLog: silent,
			Routes: s.tcpRoutes(l, prev),
		}
		s.tcpLimits(l.tcp, msg.GetLimits())
		s.warnOfNames(l)
		s.warnOfRenegotiation(l)
		s.warnOfKeys(l)
		s.checkPeek(l)
		if u := l.uses.upstream; u != nil {
			l.tcp.Default = &l4.Target{Passthrough: u.passes(), Upstreams: upstream.NewSplit([]upstream.Weighted[*upstream.Upstream]{{Value: u.live, Weight: 1}})}
		} else if msg.GetUpstream() != "" {
			l.tcp.Default = new(l4.Target)
		}
		s.warnOfPassedIdentities(l)
	case adminv1.Protocol_PROTOCOL_HTTP:
		if msg.GetTcp() != nil {
			s.Add("tcp", "must be left out: the listener's protocol is PROTOCOL_HTTP")
		}
		if msg.GetTls().GetStarttls() != adminv1.Starttls_STARTTLS_UNSPECIFIED {
			s.Add("tls.starttls", "must be left out: the listener's protocol is PROTOCOL_HTTP, and HTTP connections begin with TLS")
		}
		if msg.GetTls().GetStarttlsOptional() {
			s.Add("tls.starttls_optional", "must be left out: the listener's protocol is PROTOCOL_HTTP, and HTTP connections begin with TLS")
		}
		l.http = &l7.Table{
			TLS: l.tls, Validity: l.validity, ProxyProtocol: trusted, Access: access,
			HandshakeTimeout: handshake, IdleTimeout: idle, HeaderReadTimeout: headerRead, NoAccessLog: silent,
			Routes: s.httpRoutes(l, prev),
		}
		s.httpOptions(l.http, msg)
		s.httpLimits(l.http, msg.GetLimits(), msg.GetHttp())
		if l.uses.upstream.passes() {
			s.Add("upstream", "is %q, which is passthrough: it forwards the client's TLS, and the listener's protocol is PROTOCOL_HTTP", msg.GetUpstream())
		}
		if l.uses.upstream.upgrades() {
			s.Add("upstream", "is %q, whose tls.starttls is %v, and the listener's protocol is PROTOCOL_HTTP: HTTP connections begin with TLS", msg.GetUpstream(), l.uses.upstream.msg.GetTls().GetStarttls())
		}
		if u := l.uses.upstream; u != nil {
			l.http.Default = &l7.Action{Forward: &l7.Forward{Backs: upstream.NewSplit([]upstream.Weighted[*backs.Pools]{{Value: u.back, Weight: 1}})}}
		} else if msg.GetUpstream() != "" {
			l.http.Default = &l7.Action{Forward: new(l7.Forward)}
		}
	case adminv1.Protocol_PROTOCOL_UNSPECIFIED:
		s.Add("protocol", "must be set: PROTOCOL_TCP or PROTOCOL_HTTP")
	}
}

// passes reports whether u forwards the client's own TLS.
func (u *liveUpstream) passes() bool { return u != nil && u.msg.GetPassthrough() != nil }

// checkPeek makes a listener read its clients' SNI if some connections are passed
// through with their own TLS. A listener without TLS settings must then pass all
// connections through.
func (s listenerScope) checkPeek(l *Listener) {
	var others []string
	passes := false
	for r, u := range l.uses.upstreams() {
		switch {
		case u.passes():
			passes = true
		case r == nil:
			others = append(others, "its own upstream")
		default:
			others = append(others, fmt.Sprintf("route %q", r.msg.GetName()))
		}
	}
	l.tcp.Peek = passes
	if passes && l.msg.GetTls() == nil && len(others) > 0 {
		s.Add("tls", "must be set: some of the listener's connections are passed through, but it must decrypt the others (%s)", bounded(others))
	}
}

// peeks reports whether the listener reads the client's SNI before it chooses an
// upstream.
func (l *Listener) peeks() bool { return l.tcp != nil && l.tcp.Peek }

// passes reports whether a connection with this SNI is passed through with its own
// TLS.
func (l *Listener) passes(sni string) bool { return l.peeks() && l.tcp.Passes(sni) }

// proxies returns the peers whose PROXY protocol headers are accepted, or nil if
// clients connect directly.
func (s listenerScope) proxies(a *adminv1.AcceptProxyProtocol) *proxyproto.Trust {
	const at = invalid.Path("accept_proxy_protocol.trusted_sources")
	if a == nil {
		return nil
	}
	if len(a.GetTrustedSources()) == 0 {
		s.Add(at, "must name the peers whose headers are accepted: connections from all others are closed")
	}
	trust, bad := proxyproto.NewTrust(a.GetTrustedSources())
	for _, b := range bad {
		s.Add(at.Index(b.Index), "%s", b.Reason)
	}
	return trust
}

// warnOfRenegotiation warns of upstreams that may renegotiate if the listener
// carries connections in event loops, which cannot.
func (s listenerScope) warnOfRenegotiation(l *Listener) {
	for _, u := range l.uses.upstreams() {
		if u.msg.GetTls().GetRenegotiation() == adminv1.Renegotiation_RENEGOTIATION_ONCE {
			s.Warn(warnNoEffect, "upstream", "upstream %q has tls.renegotiation RENEGOTIATION_ONCE, which works for HTTP listeners only: a TCP connection on which the server requests it ends", u.msg.GetName())
		}
	}
}

// warnOfPassedIdentities warns of routes with a condition on the client's certificate
// if the TLS of these clients is passed through.
func (s listenerScope) warnOfPassedIdentities(l *Listener) {
	if !l.peeks() {
		return
	}
	for r := range l.uses.localRoutes() {
		m := r.msg.GetMatch()
		if m.GetClientIdentity() == nil {
			continue
		}
		var passed []string
		for _, host := range m.GetHosts() {
			if l.passes(hostLike(host)) {
				passed = append(passed, host)
			}
		}
		if len(m.GetHosts()) == 0 && l.passes("any-host.invalid") {
			passed = []string{"any other name"}
		}
		if len(passed) > 0 {
			s.Warn(warnNoEffect, "tls", "route %q, which has a client_identity, never matches clients whose SNI is %s: their TLS is passed through, so their certificates are never seen", r.msg.GetName(), bounded(passed))
		}
	}
}

// hostLike returns a host that a pattern matches. For a wildcard, it chooses a host that
// is unlikely to equal an exact host.
func hostLike(pattern string) string {
	if parent, ok := strings.CutPrefix(pattern, "*."); ok {
		return "any-host." + parent
	}
	return pattern
}

// warnOfNames warns of upstreams that take their server name from the client's
// SNI if the listener's clients send no SNI.
func (s listenerScope) warnOfNames(l *Listener) {
	if l.msg.GetTls() != nil {
		return
	}
	for r, u := range l.uses.upstreams() {
		if u.msg.GetTls().GetServerNameSource() == adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST {
			at := invalid.Path("upstream")
			if r != nil {
				at = "tls"
			}
			s.Warn(warnNoEffect, at, "upstream %q takes its server name from the client's SNI, and this listener takes plaintext: every connection for it is rejected", u.msg.GetName())
		}
	}
}

// checkOverlaps finds listeners with overlapping addresses. It reports the fault at
// the listener that is written. Of two stored listeners, it reports the one whose
// name sorts later. Only listeners with a scope can have a new overlap.
func (j *job) checkOverlaps(scopes map[string]*scope) {
	moved := map[string]bool{} // the sockets of listeners that may overlap another
	for name := range scopes {
		l, prev := j.next.listeners.Get(name), j.prev.listeners.Get(name)
		if l.Network != "" && (j.work == nil || prev == nil || prev.Down != "" || prev.Network != l.Network || prev.Address != l.Address || prev.msg.GetGateways() != l.msg.GetGateways()) {
			moved[l.socketKey()] = true
		}
	}
	if len(moved) == 0 {
		return
	}
	// A listener can overlap listeners on the same host, and listeners on all
	// hosts.
	byKey, byHost, ofAll := map[string][]*Listener{}, map[string][]*Listener{}, map[string][]*Listener{}
	for _, l := range j.next.listeners.All() {
		key := l.socketKey()
		if !moved[key] || l.port == "0" {
			continue
		}
		host, _, _ := net.SplitHostPort(l.Address)
		host = key + " " + host
		all := l.Network == "tcp" && l.anyHost()
		others := byKey[key]
		if !all {
			others = slices.Concat(byHost[host], ofAll[key])
			slices.SortFunc(others, func(a, b *Listener) int { return strings.Compare(a.Name, b.Name) })
		}
		for _, other := range others {
			if overlap(l.Network, l.Address, other.Network, other.Address) && !l.selector.Disjoint(other.selector) {
				j.reportOverlap(scopes, l, other)
			}
		}
		byKey[key] = append(byKey[key], l)
		if all {
			ofAll[key] = append(ofAll[key], l)
		} else {
			byHost[host] = append(byHost[host], l)
		}
	}
}

// anyHost reports whether the listener's address may include other hosts.
func (l *Listener) anyHost() bool {
	host, _, _ := net.SplitHostPort(l.Address)
	return host == "" || host == "::" || host == "0.0.0.0"
}

// socketKey returns a key that is equal for listeners whose addresses may
// overlap.
func (l *Listener) socketKey() string {
	if l.Network == "tcp" {
		return "tcp " + l.port
	}
	return l.Network + " " + l.Address
}

// reportOverlap reports that l overlaps other, which sorts before it.
func (j *job) reportOverlap(scopes map[string]*scope, l, other *Listener) {
	at, with := l, other
	if s, o := scopes[l.Name], scopes[other.Name]; o != nil && o.written() && (s == nil || !s.written()) {
		at, with = other, l
	}
	s := scopes[at.Name]
	if s == nil {
		j.undecided = true // the fault is at a listener that was not compiled
		return
	}
	s.Add("address", "is %s, which overlaps the address %[3]s of listener %[2]q", at.Configured, with.Name, with.Configured)
}
