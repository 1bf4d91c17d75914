package snapshot

import (
	"fmt"
	"net"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Listener is a compiled Listener resource. It is immutable.
type Listener struct {
	Name             string
	Protocol         adminv1.Protocol
	Network, Address string // in package net's form
	Configured       string // the address in the resource
	Down             string // why it must not be served; empty if it is up
	Unix             unixsocket.Options

	msg   *adminv1.Listener
	uses  listenerUses
	tls   *certs.Server
	tcp   *l4.Table
	http  *l7.Table
	notes notes
}

// listenerUses holds the live objects that a listener's table is built from.
type listenerUses struct {
	certificates []*certs.Certificate
	trust        []*certs.TrustBundle
	upstream     *liveUpstream
	routes       []*liveRoute
}

func (u listenerUses) equal(v listenerUses) bool {
	return slices.Equal(u.certificates, v.certificates) && slices.Equal(u.trust, v.trust) &&
		u.upstream.sameLive(v.upstream) && slices.EqualFunc(u.routes, v.routes, (*liveRoute).sameLive)
}

// sameLive reports whether both treat traffic alike.
func (u *liveUpstream) sameLive(v *liveUpstream) bool {
	if u == nil || v == nil {
		return u == v
	}
	return u.live == v.live
}

// compileListeners builds the listeners, each with its routes.
func (j *job) compileListeners() {
	routes := j.routes()
	listeners := j.state.List(adminv1.Kind_KIND_LISTENER)
	scopes := make([]*scope, len(listeners))
	for i, r := range listeners {
		msg := r.(*adminv1.Listener)
		scopes[i] = j.scope(msg)
		j.next.listeners[msg.GetName()] = j.listener(scopes[i], msg, routes[msg.GetName()])
	}
	j.checkOverlaps(scopes)
	for _, s := range scopes {
		l := j.next.listeners[s.ref.Name]
		l.notes = s.notes()
		if l.Down = s.close(); l.Down != "" {
			l.tcp, l.http = nil, nil
		}
	}
}

func (j *job) listener(s *scope, msg *adminv1.Listener, routes []*liveRoute) *Listener {
	prev := j.prev.listeners[msg.GetName()]
	next := &Listener{Name: msg.GetName(), msg: msg, Configured: msg.GetAddress(), Protocol: msg.GetProtocol()}
	var problem string
	if next.Network, next.Address, problem = listenAddress(msg.GetAddress()); problem != "" {
		s.Add("address", "%s", problem)
	}
	next.uses.routes = routes
	for _, r := range routes {
		// Serving without the route would send its traffic to another upstream.
		if r.problem != "" {
			s.Add("", "its route %q is down: %s", r.msg.GetName(), r.problem)
		}
	}
	if msg.GetUpstream() != "" {
		next.uses.upstream = j.next.upstreams[msg.GetUpstream()]
	}
	for i, name := range msg.GetTls().GetCertificates() {
		at := invalid.Path("tls.certificates").Index(i)
		if slices.Contains(msg.GetTls().GetCertificates()[:i], name) {
			s.Add(at, "is %q, which is in the list twice", name)
		}
		next.uses.certificates = append(next.uses.certificates, s.useCertificate(at, name))
	}
	next.uses.trust = s.useTrust("tls.client_trust_bundles", msg.GetTls().GetClientTrustBundles())

	same := prev != nil && prev.Down == "" && s.Len() == 0 && sameInputs(prev.msg, msg)
	if same && prev.uses.equal(next.uses) {
		next.tls, next.tcp, next.http, next.Unix = prev.tls, prev.tcp, prev.http, prev.Unix
		s.reuse(prev.notes)
		return next
	}
	// The TLS server is reused if its inputs are equal, so that the session tickets
	// of clients stay valid.
	if prev != nil && prev.Down == "" && s.Len() == 0 && prev.Protocol == next.Protocol && proto.Equal(prev.msg.GetTls(), msg.GetTls()) &&
		slices.Equal(prev.uses.certificates, next.uses.certificates) && slices.Equal(prev.uses.trust, next.uses.trust) {
		next.tls = prev.tls
	}
	listenerScope{s}.buildListener(next)
	return next
}

func (s listenerScope) buildListener(l *Listener) {
	msg := l.msg
	if t := msg.GetTls(); t != nil {
		s.buildServer(l, t)
	}
	handshake := s.duration("timeouts.handshake", msg.GetTimeouts().GetHandshake())
	idle := s.duration("timeouts.idle", msg.GetTimeouts().GetIdle())
	headerRead := s.duration("timeouts.header_read", msg.GetTimeouts().GetHeaderRead())
	trusted := s.proxies(msg.GetAcceptProxyProtocol())
	access := s.access(msg.GetAccess())
	linger := s.duration("tcp.linger", msg.GetTcp().GetLinger())
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
			TLS: l.tls, ProxyProtocol: trusted, Access: access,
			HandshakeTimeout: handshake, IdleTimeout: idle, Linger: linger, NoAccessLog: silent,
			Routes: s.tcpRoutes(l),
		}
		s.tcpLimits(l.tcp, msg.GetLimits())
		s.warnOfNames(l)
		s.warnOfKeys(l)
		s.checkPeek(l)
		if u := l.uses.upstream; u != nil {
			l.tcp.Default = &l4.Target{Passthrough: u.passes(), Upstreams: upstream.NewSplit([]upstream.Weighted[*upstream.Upstream]{{Value: u.live, Weight: 1}})}
		}
	case adminv1.Protocol_PROTOCOL_HTTP:
		if msg.GetTcp() != nil {
			s.Add("tcp", "must be left out: the listener's protocol is PROTOCOL_HTTP")
		}
		l.http = &l7.Table{
			TLS: l.tls, ProxyProtocol: trusted, Access: access,
			HandshakeTimeout: handshake, IdleTimeout: idle, HeaderReadTimeout: headerRead, NoAccessLog: silent,
			Routes: s.httpRoutes(l),
		}
		s.httpOptions(l.http, msg)
		s.httpLimits(l.http, msg.GetLimits(), msg.GetHttp())
		if l.uses.upstream.passes() {
			s.Add("upstream", "is %q, which is passthrough: it forwards the client's TLS, and the listener's protocol is PROTOCOL_HTTP", msg.GetUpstream())
		}
		if u := l.uses.upstream; u != nil {
			l.http.Default = &l7.Action{Forward: &l7.Forward{Backs: upstream.NewSplit([]upstream.Weighted[*backs.Pools]{{Value: u.back, Weight: 1}})}}
		}
	case adminv1.Protocol_PROTOCOL_UNSPECIFIED:
		s.Add("protocol", "must be set: PROTOCOL_TCP or PROTOCOL_HTTP")
	}
}

// passes reports whether u forwards the client's own TLS.
func (u *liveUpstream) passes() bool { return u != nil && u.msg.GetPassthrough() != nil }

// checkPeek makes a listener read the SNI of its clients if some connections are
// passed through with their own TLS. A listener without TLS settings can then only
// pass connections through.
func (s listenerScope) checkPeek(l *Listener) {
	var others []string
	passes := false
	note := func(u *liveUpstream, what string) {
		switch {
		case u == nil:
		case u.passes():
			passes = true
		default:
			others = append(others, what)
		}
	}
	note(l.uses.upstream, "its own upstream")
	for _, r := range l.uses.routes {
		for _, u := range r.upstreams {
			note(u, fmt.Sprintf("route %q", r.msg.GetName()))
		}
	}
	l.tcp.Peek = passes
	if passes && l.msg.GetTls() == nil && len(others) > 0 {
		s.Add("tls", "must be set, because some of the listener's connections are passed through and some are not (%s): without tls it cannot decrypt those", bounded(others))
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

// warnOfNames warns of upstreams that take their server name from the client's
// SNI, where no client sends one.
func (s listenerScope) warnOfNames(l *Listener) {
	if l.msg.GetTls() != nil {
		return
	}
	warn := func(p invalid.Path, u *liveUpstream) {
		if u != nil && u.msg.GetTls().GetServerNameSource() == adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST {
			s.Warn(warnNoEffect, p, "upstream %q takes its server name from the client's SNI, and this listener takes plaintext: every connection for it is rejected", u.msg.GetName())
		}
	}
	warn("upstream", l.uses.upstream)
	for _, r := range l.uses.routes {
		for _, u := range r.upstreams {
			warn("tls", u)
		}
	}
}

func (s listenerScope) buildServer(l *Listener, t *adminv1.ServerTls) {
	settings := s.tlsSettings(t)
	if len(settings.alpn) == 0 && l.msg.GetProtocol() == adminv1.Protocol_PROTOCOL_HTTP {
		settings.alpn = []string{"h2", "http/1.1", "http/1.0"} // curl --http1.0 offers only that
	}
	if l.msg.GetProtocol() == adminv1.Protocol_PROTOCOL_HTTP {
		for i, p := range t.GetAlpn() {
			if p != "h2" && p != "http/1.1" && p != "http/1.0" {
				s.Add(invalid.Path("tls.alpn").Index(i), "is %q; an HTTP listener speaks h2, http/1.1 and http/1.0", p)
			}
		}
	}
	if len(t.GetCertificates()) == 0 {
		s.Add("tls.certificates", "must name at least one certificate to present to clients")
	}
	auth := certs.ClientAuthNone
	if enum(t.GetClientAuth(), adminv1.ClientAuth_name) {
		auth = clientAuths[t.GetClientAuth()]
	}
	sans, err := certs.ParseSANs(t.GetClientSubjectAltNames())
	if err != nil {
		s.addFaults("tls.client_subject_alt_names", err)
	}
	if auth == certs.ClientAuthNone && len(sans) > 0 {
		s.Add("tls.client_subject_alt_names", "has no effect while client_auth is CLIENT_AUTH_NONE: set client_auth to CLIENT_AUTH_REQUIRED, or leave the names out")
	}
	switch {
	case auth == certs.ClientAuthNone && len(t.GetClientTrustBundles()) > 0:
		s.Add("tls.client_trust_bundles", "has no effect while client_auth is CLIENT_AUTH_NONE: set client_auth to CLIENT_AUTH_REQUIRED, or leave the bundles out")
	case auth != certs.ClientAuthNone && len(t.GetClientTrustBundles()) == 0:
		s.Add("tls.client_trust_bundles", "must name at least one trust bundle, because client_auth asks for certificates")
	}
	for i, c := range l.uses.certificates {
		if c != nil {
			s.warnUse(invalid.Path("tls.certificates").Index(i), t.GetCertificates()[i], c, certs.AsServer)
		}
	}
	if s.Len() > 0 || l.tls != nil || slices.Contains(l.uses.certificates, nil) {
		return
	}
	server, err := certs.NewServer(certs.ServerOptions{
		Certificates:     l.uses.certificates,
		RejectUnknownSNI: t.GetRejectUnknownSni(),
		ClientAuth:       auth,
		ClientTrust:      l.uses.trust,

		ClientSubjectAltNames: sans,
		MinVersion:            settings.minVersion,
		MaxVersion:            settings.maxVersion,
		CipherSuites:          settings.cipherSuites,
		Groups:                settings.groups,
		NextProtos:            settings.alpn,
	})
	if err != nil {
		s.addFaults("tls", err)
		return
	}
	l.tls = server
}

var clientAuths = map[adminv1.ClientAuth]certs.ClientAuth{
	adminv1.ClientAuth_CLIENT_AUTH_NONE:     certs.ClientAuthNone,
	adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL: certs.ClientAuthOptional,
	adminv1.ClientAuth_CLIENT_AUTH_REQUIRED: certs.ClientAuthRequired,
}

// checkOverlaps finds listeners with overlapping addresses. It reports the fault at
// the listener being written or, of two stored ones, at the later by name.
func (j *job) checkOverlaps(scopes []*scope) {
	byPort := map[string][]*scope{}
	for _, s := range scopes {
		l := j.next.listeners[s.ref.Name]
		key := l.Address
		if l.Network == "tcp" {
			_, key, _ = net.SplitHostPort(l.Address)
		}
		if l.Network == "" || key == "0" {
			continue
		}
		for _, other := range byPort[l.Network+key] {
			o := j.next.listeners[other.ref.Name]
			if !overlap(l.Network, l.Address, o.Network, o.Address) {
				continue
			}
			at, with := s, o
			if other.written() && !s.written() {
				at, with = other, l
			}
			at.Add("address", "is %s, which listener %q takes with %s", j.next.listeners[at.ref.Name].Configured, with.Name, with.Configured)
		}
		byPort[l.Network+key] = append(byPort[l.Network+key], s)
	}
}
