package snapshot

import (
	"fmt"
	"slices"

	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

var starttlsProtocols = map[adminv1.Starttls]starttls.Protocol{
	adminv1.Starttls_STARTTLS_POSTGRES: starttls.Postgres,
	adminv1.Starttls_STARTTLS_MYSQL:    starttls.MySQL,
	adminv1.Starttls_STARTTLS_SMTP:     starttls.SMTP,
	adminv1.Starttls_STARTTLS_LMTP:     starttls.LMTP,
	adminv1.Starttls_STARTTLS_IMAP:     starttls.IMAP,
	adminv1.Starttls_STARTTLS_POP3:     starttls.POP3,
	adminv1.Starttls_STARTTLS_LDAP:     starttls.LDAP,
	adminv1.Starttls_STARTTLS_NNTP:     starttls.NNTP,
	adminv1.Starttls_STARTTLS_SIEVE:    starttls.Sieve,
}

// upgrades reports whether connections to the upstream begin in a plaintext protocol.
// Such an upstream cannot serve HTTP.
func upgrades(msg *adminv1.Upstream) bool {
	return msg.GetTls().GetStarttls() != adminv1.Starttls_STARTTLS_UNSPECIFIED
}

// upgrades reports whether connections to u begin in a plaintext protocol.
func (u *liveUpstream) upgrades() bool { return u != nil && upgrades(u.msg) }

// starttls returns the protocol in which the gateway requests TLS from endpoints. It
// rejects settings for HTTP, whose connections begin with TLS.
func (s upstreamScope) starttls(msg *adminv1.Upstream) starttls.Protocol {
	v := msg.GetTls().GetStarttls()
	if !upgrades(msg) || !enum(v, adminv1.Starttls_name) {
		return starttls.None
	}
	check := msg.GetHealthCheck()
	pool := msg.GetPool()
	for _, f := range []struct {
		at  invalid.Path
		set bool
	}{
		{"http", msg.GetHttp() != nil}, {"pool.max_idle", pool != nil && pool.MaxIdle != nil},
		{"health_check.http", check.GetHttp() != nil}, {"health_check.grpc", check.GetGrpc() != nil},
		{"balancing.hash.header", msg.GetBalancing().GetHash().GetHeader() != ""}, {"balancing.hash.cookie", msg.GetBalancing().GetHash().GetCookie() != ""},
	} {
		if f.set {
			s.Add(f.at, "must be left out where tls.starttls is %v: HTTP connections begin with TLS, so such an upstream serves only TCP listeners", v)
		}
	}
	return starttlsProtocols[v]
}

// starttls returns the protocol in which a TCP listener's clients request TLS. It
// rejects upstreams whose connections begin in another protocol, and settings that
// plaintext clients would bypass.
func (s listenerScope) starttls(l *Listener) starttls.Protocol {
	const at, optional = "tls.starttls", "tls.starttls_optional"
	t := l.msg.GetTls()
	v := t.GetStarttls()
	switch {
	case !enum(v, adminv1.Starttls_name):
		return starttls.None
	case v == adminv1.Starttls_STARTTLS_UNSPECIFIED:
		if t.GetStarttlsOptional() {
			s.Add(optional, "needs tls.starttls, the protocol in which clients request TLS")
		}
		return starttls.None
	}
	if t.GetStarttlsOptional() {
		if t.GetRejectUnknownSni() {
			s.Add(optional, "must be left out where tls.reject_unknown_sni is set: clients in plaintext send no SNI")
		}
		if slices.ContainsFunc(l.uses.policies, func(p *livePolicy) bool {
			return p.msg.GetClientAuth() == adminv1.ClientAuth_CLIENT_AUTH_REQUIRED
		}) {
			s.Add(optional, "must be left out where client_auth is CLIENT_AUTH_REQUIRED: clients in plaintext present no certificate")
		}
		s.warnSecurity(warnPlaintextClients, optional, "accepts clients without TLS; anyone on the network path can read what they send, and can prevent a client from requesting TLS")
	}
	if starttlsProtocols[v].ServerGreets() {
		for r := range l.uses.localRoutes() {
			if m := r.msg.GetMatch(); len(m.GetHosts()) > 0 || m.GetClientIdentity() != nil {
				s.Add(at, "is %v, and route %q has a condition on the client's SNI or certificate: the upstream must greet such a client before its TLS handshake", v, r.msg.GetName())
			}
		}
	}
	for r, u := range l.uses.upstreams() {
		user := "the listener's own upstream"
		if r != nil {
			user = fmt.Sprintf("the upstream of route %q", r.msg.GetName())
		}
		switch other := u.msg.GetTls().GetStarttls(); {
		case u.passes():
			s.Add(at, "must be left out: %s, %q, is passthrough, which forwards connections that begin with TLS", user, u.msg.GetName())
		case other != adminv1.Starttls_STARTTLS_UNSPECIFIED && other != v:
			s.Add(at, "is %v, and %s, %q, has tls.starttls %v: both must name the same protocol", v, user, u.msg.GetName(), other)
		}
	}
	return starttlsProtocols[v]
}

// checkStarttls rejects upstreams of an HTTP listener's route whose connections begin
// in another protocol.
func (s routeScope) checkStarttls(msg *adminv1.Route, l *adminv1.Listener) {
	for i, w := range msg.GetForward().GetUpstreams() {
		u, ok := s.job.state.Get(adminv1.Kind_KIND_UPSTREAM, w.GetName()).(*adminv1.Upstream)
		if ok && upgrades(u) {
			s.Add(invalid.Path("forward.upstreams").Index(i).Field("name"), "is %q, whose tls.starttls is %v, and listener %q is PROTOCOL_HTTP: HTTP connections begin with TLS", u.GetName(), u.GetTls().GetStarttls(), l.GetName())
		}
	}
}
