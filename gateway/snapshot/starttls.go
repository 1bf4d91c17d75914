package snapshot

import (
	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

var starttlsProtocols = map[adminv1.Starttls]starttls.Protocol{
	adminv1.Starttls_STARTTLS_POSTGRES: starttls.Postgres,
	adminv1.Starttls_STARTTLS_SMTP:     starttls.SMTP,
	adminv1.Starttls_STARTTLS_LMTP:     starttls.LMTP,
	adminv1.Starttls_STARTTLS_IMAP:     starttls.IMAP,
	adminv1.Starttls_STARTTLS_POP3:     starttls.POP3,
	adminv1.Starttls_STARTTLS_LDAP:     starttls.LDAP,
	adminv1.Starttls_STARTTLS_NNTP:     starttls.NNTP,
	adminv1.Starttls_STARTTLS_SIEVE:    starttls.Sieve,
}

// upgrades reports whether connections to the upstream begin in a plaintext protocol.
// Such an upstream carries no HTTP.
func upgrades(msg *adminv1.Upstream) bool {
	return msg.GetTls().GetStarttls() != adminv1.Starttls_STARTTLS_UNSPECIFIED
}

// upgrades reports whether connections to u begin in a plaintext protocol.
func (u *liveUpstream) upgrades() bool { return u != nil && upgrades(u.msg) }

// starttls returns the protocol in which endpoints are asked to start TLS. It rejects
// settings for HTTP, which begins with TLS.
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
