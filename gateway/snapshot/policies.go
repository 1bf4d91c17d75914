package snapshot

import (
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A livePolicy is one TLS policy of a listener: its base settings, or one of its
// policies for some hosts.
type livePolicy struct {
	at    invalid.Path // within the listener: "tls", "tls.policies[0]"
	hosts []string     // normalized; nil for the base
	msg   policySettings

	certificates []*certs.Certificate
	trust        []*certs.TrustBundle
	server       *certs.Server
	warnings     []invalid.Warning // about the settings that server was made from
	former       *certs.Server     // that server replaces; nil: none
}

// policySettings is the fields that ServerTls and TlsPolicy share.
type policySettings interface {
	proto.Message
	commonTLS
	GetCertificates() []string
	GetClientAuth() adminv1.ClientAuth
	GetClientTrustBundles() []string
	GetClientSubjectAltNames() []string
	GetAllowMissingClientAuthUsage() bool
}

// sameUses reports whether both refer to the same live objects.
func (p *livePolicy) sameUses(o *livePolicy) bool {
	return slices.Equal(p.certificates, o.certificates) && slices.Equal(p.trust, o.trust)
}

// sameServer reports whether the Server of one would be like the Server of the
// other. The hosts do not count: a ticket names the host that it is for.
func (p *livePolicy) sameServer(o *livePolicy) bool {
	return p.sameUses(o) && (p.msg == o.msg || proto.Equal(ownSettings(p.msg), ownSettings(o.msg)))
}

// ownSettings returns the settings of one policy.
func ownSettings(m policySettings) proto.Message {
	c := proto.Clone(m)
	switch c := c.(type) {
	case *adminv1.ServerTls:
		c.Policies, c.Revalidation, c.StarttlsOptional = nil, nil, false
	case *adminv1.TlsPolicy:
		c.Hosts = nil
	}
	return c
}

// usePolicies returns a listener's policies, the base first, with the live objects
// that they refer to. It takes those that have not changed from prev.
func (s listenerScope) usePolicies(l, prev *Listener) []*livePolicy {
	t := l.msg.GetTls()
	if t == nil {
		return nil
	}
	var before []*livePolicy
	if s.job.work != nil && prev != nil && prev.Down == "" {
		before = prev.uses.policies
		if prev.msg.GetTls() == t && prev.Protocol == l.Protocol && !slices.ContainsFunc(before, s.replacesUses) {
			return before
		}
	}
	out := []*livePolicy{{at: "tls", msg: t}}
	owners := map[string]invalid.Path{}
	for i, p := range t.GetPolicies() {
		at := invalid.Path("tls.policies").Index(i)
		out = append(out, &livePolicy{at: at, msg: p, hosts: s.policyHosts(at, p.GetHosts(), owners)})
	}
	for _, p := range out {
		var former *livePolicy
		if i := slices.IndexFunc(before, p.replaces); i >= 0 {
			former = before[i]
		}
		s.useListed(p, former)
	}
	return out
}

// replacesUses reports whether the compile replaces an object that a policy uses.
func (s listenerScope) replacesUses(p *livePolicy) bool {
	work := s.job.work
	return work.replaces(work.certificates, p.msg.GetCertificates()) || work.replaces(work.bundles, p.msg.GetClientTrustBundles())
}

// useListed sets the certificates and trust bundles that a policy names. It takes the
// certificates that have not changed from the former policy, which may be nil.
func (s listenerScope) useListed(p, former *livePolicy) {
	var names []string
	if former != nil {
		names = former.msg.GetCertificates()
	}
	at, twice := p.at.Field("certificates"), duplicates(p.msg.GetCertificates())
	for i, name := range p.msg.GetCertificates() {
		if twice[i] {
			s.Add(at.Index(i), "is %q, which is in the list twice", name)
		}
		if i < len(names) && names[i] == name && !s.job.work.certificates[name] {
			p.certificates = append(p.certificates, former.certificates[i])
			continue
		}
		p.certificates = append(p.certificates, s.useCertificate(at.Index(i), name))
	}
	p.trust = s.useTrust(p.at.Field("client_trust_bundles"), p.msg.GetClientTrustBundles())
}

// policyHosts checks the hosts of a policy and returns them normalized. owners holds
// the policy of each host so far.
func (s listenerScope) policyHosts(at invalid.Path, hosts []string, owners map[string]invalid.Path) (out []string) {
	if len(hosts) == 0 {
		s.Add(at.Field("hosts"), "must name at least one host: the settings for all others are those of tls itself")
	}
	for i, h := range hosts {
		field := at.Field("hosts").Index(i)
		if err := route.CheckHost(h); err != nil {
			s.Add(field, "%v", err)
			continue
		}
		host := strings.ToLower(strings.TrimSuffix(h, "."))
		if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
			s.Add(field, "is the address %s: a client never sends an address as SNI", host)
			continue
		}
		switch owner, taken := owners[host]; {
		case taken && owner == at:
			s.Add(field, "is %q, which is in the list twice", host)
		case taken:
			s.Add(field, "is %q, which is also a host of %s", host, owner)
		default:
			owners[host] = at
			out = append(out, host)
		}
	}
	return out
}

// reuseServers takes over the Servers of prev's policies whose settings have not
// changed, so that the session tickets of clients stay valid. If only the requirements
// for clients have changed, a new Server takes over the tickets of the old one.
func (l *Listener) reuseServers(prev *Listener) {
	taken := map[*certs.Server]bool{} // no two policies share a Server
	for _, p := range l.uses.policies {
		for _, o := range prev.uses.policies {
			if o.server != nil && !taken[o.server] && p.replaces(o) && p.sameServer(o) {
				p.server, taken[o.server] = o.server, true
				if p.at == o.at {
					p.warnings = o.warnings
				}
				break
			}
		}
	}
	for _, p := range l.uses.policies {
		for _, o := range prev.uses.policies {
			if p.server == nil && o.server != nil && !taken[o.server] && p.replaces(o) {
				p.former, taken[o.server] = o.server, true
				break
			}
		}
	}
	if slices.EqualFunc(l.uses.policies, prev.uses.policies, func(p, o *livePolicy) bool { return p.server == o.server && slices.Equal(p.hosts, o.hosts) }) {
		l.tls = prev.tls
	}
}

// replaces reports whether p continues a former policy: both are the base, or they have a
// host in common.
func (p *livePolicy) replaces(former *livePolicy) bool {
	if p.hosts == nil || former.hosts == nil {
		return p.hosts == nil && former.hosts == nil
	}
	return slices.ContainsFunc(p.hosts, func(h string) bool { return slices.Contains(former.hosts, h) })
}

// buildServers makes the Servers of a listener's policies.
func (s listenerScope) buildServers(l *Listener) {
	for _, p := range l.uses.policies {
		s.buildServer(l, p)
	}
	if s.Len() > 0 || l.tls != nil || slices.ContainsFunc(l.uses.policies, func(p *livePolicy) bool { return p.server == nil }) {
		return
	}
	var policies []certs.Policy
	for _, p := range l.uses.policies[1:] {
		policies = append(policies, certs.Policy{Hosts: p.hosts, Server: p.server})
	}
	l.tls = certs.NewServers(l.uses.policies[0].server, policies...)
}

func (s listenerScope) buildServer(l *Listener, p *livePolicy) {
	if p.server != nil && p.warnings != nil { // nothing about it has changed
		for _, w := range p.warnings {
			s.Warned(w)
		}
		s.warnOfHosts(p)
		return
	}
	t, known := p.msg, len(s.Warnings())
	settings := s.tlsSettings(p.at, t)
	if l.msg.GetProtocol() == adminv1.Protocol_PROTOCOL_HTTP {
		if len(settings.alpn) == 0 {
			settings.alpn = []string{"h2", "http/1.1", "http/1.0"} // curl --http1.0 offers only that
		}
		for i, proto := range t.GetAlpn() {
			if proto != "h2" && proto != "http/1.1" && proto != "http/1.0" {
				s.Add(p.at.Field("alpn").Index(i), "is %q; an HTTP listener speaks h2, http/1.1 and http/1.0", proto)
			}
		}
	}
	if len(settings.alpn) == 0 && l.msg.GetTls().GetStarttls() == adminv1.Starttls_STARTTLS_POSTGRES {
		settings.alpn = []string{"postgresql"} // which clients that begin with TLS must negotiate
	}
	if len(t.GetCertificates()) == 0 {
		s.Add(p.at.Field("certificates"), "must name at least one certificate to present to clients")
	}
	auth, sans := s.clientAuth(p)
	at := p.at.Field("certificates")
	for i, c := range p.certificates {
		if c != nil {
			s.warnUse(at.Index(i), t.GetCertificates()[i], c, certs.AsServer)
		}
	}
	p.warnings = append([]invalid.Warning{}, s.Warnings()[known:]...)
	s.warnOfHosts(p)
	if s.Len() > 0 || p.server != nil || slices.Contains(p.certificates, nil) {
		return
	}
	server, err := certs.NewServer(certs.ServerOptions{
		Certificates:     p.certificates,
		RejectUnknownSNI: p.hosts == nil && l.msg.GetTls().GetRejectUnknownSni(),
		ClientAuth:       auth,
		ClientTrust:      p.trust,

		AllowMissingClientAuthUsage: t.GetAllowMissingClientAuthUsage(),

		ClientSubjectAltNames: sans,
		MinVersion:            settings.minVersion,
		MaxVersion:            settings.maxVersion,
		CipherSuites:          settings.cipherSuites,
		Groups:                settings.groups,
		NextProtos:            settings.alpn,
		Replaces:              p.former,
		Time:                  s.job.now,
	})
	p.former = nil
	if err != nil {
		s.addFaults(p.at, err)
		return
	}
	p.server = server
}

// clientAuth checks the settings for client certificates.
func (s listenerScope) clientAuth(p *livePolicy) (certs.ClientAuth, []certs.SAN) {
	t, auth := p.msg, certs.ClientAuthNone
	if enum(t.GetClientAuth(), adminv1.ClientAuth_name) {
		auth = clientAuths[t.GetClientAuth()]
	}
	names, bundles := p.at.Field("client_subject_alt_names"), p.at.Field("client_trust_bundles")
	sans, err := certs.ParseSANs(t.GetClientSubjectAltNames())
	if err != nil {
		s.addFaults(names, err)
	}
	if auth == certs.ClientAuthNone && len(t.GetClientSubjectAltNames()) > 0 {
		s.Add(names, "has no effect while client_auth is CLIENT_AUTH_NONE: set client_auth to CLIENT_AUTH_REQUIRED, or leave the names out")
	}
	if at := p.at.Field("allow_missing_client_auth_usage"); t.GetAllowMissingClientAuthUsage() {
		if auth == certs.ClientAuthNone {
			s.Add(at, "has no effect while client_auth is CLIENT_AUTH_NONE: set client_auth to CLIENT_AUTH_REQUIRED, or leave it out")
		} else {
			s.warnSecurity(warnClientAuthUsage, at, "accepts the certificate of any server as a client's, if its CA is in client_trust_bundles; name the clients that you mean in client_subject_alt_names or in the client_identity of routes")
		}
	}
	switch {
	case auth == certs.ClientAuthNone && len(t.GetClientTrustBundles()) > 0:
		s.Add(bundles, "has no effect while client_auth is CLIENT_AUTH_NONE: set client_auth to CLIENT_AUTH_REQUIRED, or leave the bundles out")
	case auth != certs.ClientAuthNone && len(t.GetClientTrustBundles()) == 0:
		s.Add(bundles, "must name at least one trust bundle, because client_auth asks for certificates")
	}
	return auth, sans
}

// warnOfHosts warns of hosts of a policy for which it has no certificate.
func (s listenerScope) warnOfHosts(p *livePolicy) {
	for i, host := range p.hosts {
		name := host
		if parent, ok := strings.CutPrefix(host, "*."); ok {
			name = "any-host." + parent // a certificate for every host below parent is valid for this one
		}
		valid := func(c *certs.Certificate) bool { return c == nil || c.Matches(name) }
		if !slices.ContainsFunc(p.certificates, valid) {
			s.Warn(warnCertificate, p.at.Field("hosts").Index(i), "none of the policy's certificates is valid for %s: clients will reject the one that is presented", host)
		}
	}
}

var clientAuths = map[adminv1.ClientAuth]certs.ClientAuth{
	adminv1.ClientAuth_CLIENT_AUTH_NONE:     certs.ClientAuthNone,
	adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL: certs.ClientAuthOptional,
	adminv1.ClientAuth_CLIENT_AUTH_REQUIRED: certs.ClientAuthRequired,
}
