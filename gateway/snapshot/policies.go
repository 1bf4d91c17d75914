package snapshot

import (
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// baseAt is the path of the base settings within a listener.
const baseAt = invalid.Path("tls")

// A livePolicy is one TLS policy of a listener: its base settings, or one of its
// policies for some hosts.
type livePolicy struct {
	at    invalid.Path // path within the listener: baseAt, or such as "tls.policies[0]"
	hosts []string     // normalized; nil for the base
	msg   policySettings

	certificates []*certs.Certificate
	trust        []*certs.TrustBundle
	server       *certs.Server
	warnings     []invalid.Warning // warnings about the settings of server
	former       *certs.Server     // the Server that server replaces, or nil
}

// policySettings has the fields that ServerTls and TlsPolicy share.
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

// sameServer reports whether both have the same Server settings. The hosts do
// not count, because a session ticket names its host.
func (p *livePolicy) sameServer(o *livePolicy) bool {
	return p.sameUses(o) && (p.msg == o.msg || store.SameMessage(ownSettings(p.msg), ownSettings(o.msg)))
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

// formerPolicies finds the policies that a new policy continues. The base continues
// the base. Any other policy continues the policies that share a host with it.
type formerPolicies struct {
	list   []*livePolicy  // starts with the base
	byHost map[string]int // index in list
}

func newFormerPolicies(list []*livePolicy) formerPolicies {
	f := formerPolicies{list, map[string]int{}}
	for i, p := range list {
		for _, host := range p.hosts {
			f.byHost[host] = i
		}
	}
	return f
}

// of returns the policies that p continues, in their order.
func (f formerPolicies) of(p *livePolicy) []*livePolicy {
	if p.at == baseAt {
		return f.list[:min(1, len(f.list))]
	}
	var at []int
	for _, host := range p.hosts {
		if i, ok := f.byHost[host]; ok {
			at = append(at, i)
		}
	}
	slices.Sort(at)
	var out []*livePolicy
	for _, i := range slices.Compact(at) {
		out = append(out, f.list[i])
	}
	return out
}

// usePolicies returns a listener's policies, the base first, with the live objects
// that they refer to. It reuses unchanged policies of prev.
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
	out := []*livePolicy{{at: baseAt, msg: t}}
	owners := map[string]invalid.Path{}
	for i, p := range t.GetPolicies() {
		at := invalid.Path("tls.policies").Index(i)
		out = append(out, &livePolicy{at: at, msg: p, hosts: s.policyHosts(at, p.GetHosts(), owners)})
	}
	former := newFormerPolicies(before)
	for _, p := range out {
		if continued := former.of(p); len(continued) > 0 {
			s.useListed(p, continued[0])
		} else {
			s.useListed(p, nil)
		}
	}
	return out
}

// replacesUses reports whether the compile replaces an object that a policy uses.
func (s listenerScope) replacesUses(p *livePolicy) bool {
	work := s.job.work
	return work.replaces(work.certificates, p.msg.GetCertificates()) || work.replaces(work.bundles, p.msg.GetClientTrustBundles())
}

// useListed sets the certificates and trust bundles that a policy names. It reuses
// unchanged certificates of the former policy, which may be nil.
func (s listenerScope) useListed(p, former *livePolicy) {
	names, at := p.msg.GetCertificates(), p.at.Field("certificates")
	p.trust = s.useTrust(p.at.Field("client_trust_bundles"), p.msg.GetClientTrustBundles())
	if former != nil && slices.Equal(former.msg.GetCertificates(), names) {
		p.certificates = former.certificates
		if !s.job.work.replaces(s.job.work.certificates, names) {
			return
		}
		p.certificates = slices.Clone(p.certificates)
		for i, name := range names {
			if s.job.work.certificates[name] {
				p.certificates[i] = s.useCertificate(at.Index(i), name)
			}
		}
		return
	}
	twice := duplicates(names)
	for i, name := range names {
		if twice[i] {
			s.Add(at.Index(i), "is %q, which is in the list twice", name)
		}
		p.certificates = append(p.certificates, s.useCertificate(at.Index(i), name))
	}
}

// policyHosts checks the hosts of a policy and returns them normalized. owners maps
// each host to its policy so far.
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

// reuseServers reuses the Servers of prev's policies with unchanged settings, so that
// the clients' session tickets stay valid. If only the requirements for clients have
// changed, a new Server continues the tickets of the old one.
func (l *Listener) reuseServers(prev *Listener) {
	former := newFormerPolicies(prev.uses.policies)
	taken := map[*certs.Server]bool{} // no two policies share a Server
	for _, p := range l.uses.policies {
		for _, o := range former.of(p) {
			if o.server != nil && !taken[o.server] && p.sameServer(o) {
				p.server, taken[o.server] = o.server, true
				if p.at == o.at {
					p.warnings = o.warnings
				}
				break
			}
		}
	}
	for _, p := range l.uses.policies {
		for _, o := range former.of(p) {
			if p.server == nil && o.server != nil && !taken[o.server] {
				p.former, taken[o.server] = o.server, true
				break
			}
		}
	}
	if slices.EqualFunc(l.uses.policies, prev.uses.policies, func(p, o *livePolicy) bool { return p.server == o.server && slices.Equal(p.hosts, o.hosts) }) {
		l.tls = prev.tls
	}
}

// buildServers builds the Servers of a listener's policies.
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
	if p.server != nil && p.warnings != nil { // the policy has not changed
		for _, w := range p.warnings {
			s.AddWarning(w)
		}
		s.warnOfHosts(p)
		return
	}
	t, known := p.msg, len(s.Warnings())
	settings := s.tlsSettings(p.at, t)
	if l.msg.GetProtocol() == adminv1.Protocol_PROTOCOL_HTTP {
		if len(settings.alpn) == 0 {
			settings.alpn = []string{"h2", "http/1.1", "http/1.0"} // curl --http1.0 offers only http/1.0
		}
		for i, proto := range t.GetAlpn() {
			if proto != "h2" && proto != "http/1.1" && proto != "http/1.0" {
				s.Add(p.at.Field("alpn").Index(i), "is %q; an HTTP listener speaks h2, http/1.1 and http/1.0", proto)
			}
		}
	}
	if len(settings.alpn) == 0 && l.msg.GetTls().GetStarttls() == adminv1.Starttls_STARTTLS_POSTGRES {
		settings.alpn = []string{"postgresql"} // required for clients that begin with TLS
	}
	if len(t.GetCertificates()) == 0 {
		s.Add(p.at.Field("certificates"), "must name at least one certificate to present to clients")
	}
	auth, sans := s.clientAuth(p)
	for i, c := range p.certificates {
		if c == nil {
			continue
		}
		// The path is built only for a warning, because there may be ten thousand
		// certificates.
		if findings, _ := c.UseFindings(certs.AsServer); len(findings) > 0 {
			s.warnUse(p.at.Field("certificates").Index(i), t.GetCertificates()[i], c, certs.AsServer)
		}
	}
	p.warnings = append([]invalid.Warning{}, s.Warnings()[known:]...)
	if p.server == nil && s.Len() == 0 && !slices.Contains(p.certificates, nil) {
		s.newServer(l, p, settings, auth, sans)
	}
	if p.server != nil {
		s.warnOfHosts(p)
	}
}

// newServer builds the Server of a policy with valid settings.
func (s listenerScope) newServer(l *Listener, p *livePolicy, settings tlsSettings, auth certs.ClientAuth, sans []certs.SAN) {
	server, err := certs.NewServer(certs.ServerOptions{
		Certificates:     p.certificates,
		RejectUnknownSNI: p.hosts == nil && l.msg.GetTls().GetRejectUnknownSni(),
		ClientAuth:       auth,
		ClientTrust:      p.trust,

		AllowMissingClientAuthUsage: p.msg.GetAllowMissingClientAuthUsage(),

		ClientSubjectAltNames: sans,
		MinVersion:            settings.minVersion,
		MaxVersion:            settings.maxVersion,
		CipherSuites:          settings.cipherSuites,
		Groups:                settings.groups,
		NextProtos:            settings.alpn,
		Replaces:              p.former,
		Owner:                 p.owner(l),
		Inherited:             s.job.ticketKeys,
		TicketSecrets:         s.job.tickets,
		Time:                  s.job.now,
	})
	p.former = nil
	if err != nil {
		s.addFaults(p.at, err)
		return
	}
	p.server = server
}

// owner returns a name for the policy that is unique among all listeners.
func (p *livePolicy) owner(l *Listener) string {
	return l.Name + " " + strings.Join(p.hosts, " ")
}

// TicketKeys returns the ticket keys of every listener, for another process.
func (s *Snapshot) TicketKeys() certs.TicketKeys {
	keys := certs.TicketKeys{}
	for _, l := range s.Listeners() {
		for _, p := range l.uses.policies {
			keys.Add(p.server)
		}
	}
	return keys
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
		s.Add(bundles, "must name at least one trust bundle, because client_auth requests certificates")
	}
	return auth, sans
}

// warnOfHosts warns of hosts of a policy for which its Server has no certificate.
func (s listenerScope) warnOfHosts(p *livePolicy) {
	for i, host := range p.hosts {
		name := hostLike(host) // a certificate that covers the pattern is valid for this host
		if !p.server.Presents(name) {
			s.Warn(warnCertificate, p.at.Field("hosts").Index(i), "none of the policy's certificates is valid for %s: clients will reject the one that is presented", host)
		}
	}
}

var clientAuths = map[adminv1.ClientAuth]certs.ClientAuth{
	adminv1.ClientAuth_CLIENT_AUTH_NONE:     certs.ClientAuthNone,
	adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL: certs.ClientAuthOptional,
	adminv1.ClientAuth_CLIENT_AUTH_REQUIRED: certs.ClientAuthRequired,
}
