package snapshot

import (
	"slices"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A routePartner holds facts about a listener or upstream that a route names.
// checkPartners checks the route against these facts only.
type routePartner struct {
	exists                    bool
	protocol                  adminv1.Protocol
	tls, requestsCertificates bool // a listener: it has TLS, and requests certificates
	passthrough, upgrades     bool // an upstream
}

// partner returns the facts about a listener or upstream.
func partner(r store.Resource) routePartner {
	switch r := r.(type) {
	case *adminv1.Listener:
		return routePartner{exists: true, protocol: r.GetProtocol(), tls: r.GetTls() != nil, requestsCertificates: asksForCertificates(r.GetTls())}
	case *adminv1.Upstream:
		return routePartner{exists: true, passthrough: r.GetPassthrough() != nil, upgrades: upgrades(r)}
	}
	return routePartner{}
}

// partnerChanged reports whether a change of a listener or upstream requires checks of
// the routes that name it. A new timeout, for example, does not, so that ten thousand
// routes need no check.
func (j *job) partnerChanged(ref store.Ref) bool {
	before, now := j.prev.State().Get(ref.Kind, ref.Name), j.state.Get(ref.Kind, ref.Name)
	return before != now && partner(before) != partner(now)
}

// partnersChanged reports whether the route must be checked again because one of its
// listeners or upstreams changed.
func (j *job) partnersChanged(msg *adminv1.Route) bool {
	for _, l := range msg.GetListeners() {
		if j.partnerChanged(store.Ref{Kind: adminv1.Kind_KIND_LISTENER, Name: l}) {
			return true
		}
	}
	return slices.ContainsFunc(msg.GetForward().GetUpstreams(), func(u *adminv1.WeightedUpstream) bool {
		return j.partnerChanged(store.Ref{Kind: adminv1.Kind_KIND_UPSTREAM, Name: u.GetName()})
	})
}

// checkPartners is the part of checkRoute that depends on listeners and upstreams.
func (s routeScope) checkPartners(msg *adminv1.Route) {
	for _, name := range msg.GetListeners() {
		s.checkListener(msg, name)
	}
	s.checkMix(msg)
}

// checkListener rejects settings that the listener's protocol does not have.
func (s routeScope) checkListener(msg *adminv1.Route, name string) {
	l, ok := s.job.state.Get(adminv1.Kind_KIND_LISTENER, name).(*adminv1.Listener)
	if !ok {
		return // the store reports the missing listener
	}
	s.checkClientIdentity(msg, l)
	switch l.GetProtocol() {
	case adminv1.Protocol_PROTOCOL_TCP:
		s.checkTCPRoute(msg, l)
	case adminv1.Protocol_PROTOCOL_HTTP:
		s.checkHTTPRoute(msg, l)
	}
}

// checkMix rejects routes that mix passthrough and other upstreams.
func (s routeScope) checkMix(msg *adminv1.Route) {
	if n := len(s.passthroughs(msg)); n > 0 && n < len(msg.GetForward().GetUpstreams()) {
		s.Add("forward.upstreams", "must not mix passthrough and other upstreams: the client's TLS is either decrypted or passed through")
	}
}

// checkClientIdentity rejects a condition on the client's certificate if the listener
// requests no certificates.
func (s routeScope) checkClientIdentity(msg *adminv1.Route, l *adminv1.Listener) {
	const at = "match.client_identity"
	switch {
	case msg.GetMatch().GetClientIdentity() == nil:
	case l.GetTls() == nil:
		s.Add(at, "needs client certificates, and listener %q has no tls", l.GetName())
	case !asksForCertificates(l.GetTls()):
		s.Add(at, "needs client certificates, and listener %q requests none: set client_auth in tls, or in one of its policies", l.GetName())
	case len(s.passthroughs(msg)) > 0:
		s.Add(at, "must be left out: an upstream of the route is passthrough, so the client's certificate is never seen")
	}
}

// asksForCertificates reports whether the listener requests certificates of some clients.
func asksForCertificates(t *adminv1.ServerTls) bool {
	requestsCertificates := func(a adminv1.ClientAuth) bool {
		return a == adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL || a == adminv1.ClientAuth_CLIENT_AUTH_REQUIRED
	}
	return requestsCertificates(t.GetClientAuth()) || slices.ContainsFunc(t.GetPolicies(), func(p *adminv1.TlsPolicy) bool { return requestsCertificates(p.GetClientAuth()) })
}

// checkTCPRoute rejects settings that have no meaning for TCP connections.
func (s routeScope) checkTCPRoute(msg *adminv1.Route, l *adminv1.Listener) {
	const tcp = "must be left out: listener %q is PROTOCOL_TCP"
	m, retry := msg.GetMatch(), msg.GetForward().GetRetry()
	if len(m.GetHosts()) > 0 && l.GetTls() == nil && len(s.passthroughs(msg)) == 0 {
		s.Add("match.hosts", "needs TLS, because the host is the client's SNI, and listener %q takes plaintext", l.GetName())
	}
	for _, f := range []struct {
		at  invalid.Path
		set bool
	}{
		{"match.path", m.GetPath() != nil}, {"match.methods", len(m.GetMethods()) > 0}, {"match.headers", len(m.GetHeaders()) > 0},
		{"redirect", msg.GetRedirect() != nil}, {"respond", msg.GetRespond() != nil}, {"forward.timeout", msg.GetForward().GetTimeout() != nil},
		{"forward.total_timeout", msg.GetForward().GetTotalTimeout() != nil}, {"forward.rewrite", msg.GetForward().GetRewrite() != nil},
		{"forward.retry.on", len(retry.GetOn()) > 0}, {"forward.retry.codes", len(retry.GetCodes()) > 0},
		{"forward.retry.methods", len(retry.GetMethods()) > 0}, {"forward.retry.max_body_bytes", retry != nil && retry.MaxBodyBytes != nil},
		{"forward.retry.backoff", retry.GetBackoff() != nil},
		{"request_headers", msg.GetRequestHeaders() != nil}, {"response_headers", msg.GetResponseHeaders() != nil},
	} {
		if f.set {
			s.Add(f.at, tcp, l.GetName())
		}
	}
}

// checkHTTPRoute rejects upstreams that cannot serve HTTP requests.
func (s routeScope) checkHTTPRoute(msg *adminv1.Route, l *adminv1.Listener) {
	for _, i := range s.passthroughs(msg) {
		u := msg.GetForward().GetUpstreams()[i]
		s.Add(invalid.Path("forward.upstreams").Index(i).Field("name"), "is %q, which is passthrough: it forwards the client's TLS, and listener %q is PROTOCOL_HTTP", u.GetName(), l.GetName())
	}
	s.checkStarttls(msg, l)
}

// passthroughs returns the indices of the route's upstreams that forward the client's
// own TLS.
func (s routeScope) passthroughs(msg *adminv1.Route) (indices []int) {
	for i, w := range msg.GetForward().GetUpstreams() {
		u, ok := s.job.state.Get(adminv1.Kind_KIND_UPSTREAM, w.GetName()).(*adminv1.Upstream)
		if ok && u.GetPassthrough() != nil {
			indices = append(indices, i)
		}
	}
	return indices
}
