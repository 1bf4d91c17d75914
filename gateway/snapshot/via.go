package snapshot

import (
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/egress"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// proxyUses holds the live objects for TLS with an egress proxy.
type proxyUses struct {
	certificate *certs.Certificate
	trust       []*certs.TrustBundle
}

func (u proxyUses) equal(v proxyUses) bool {
	return u.certificate == v.certificate && slices.Equal(u.trust, v.trust)
}

const viaTLS = invalid.Path("via.http_connect.tls")

// useProxy returns the objects that the TLS settings of an egress proxy name.
func (s upstreamScope) useProxy(msg *adminv1.Upstream) (u proxyUses) {
	t := msg.GetVia().GetHttpConnect().GetTls()
	if t == nil {
		return u
	}
	if t.GetCertificate() != "" {
		u.certificate = s.useCertificate(viaTLS.Field("certificate"), t.GetCertificate())
	}
	if len(t.GetTrustBundles()) == 0 {
		u.trust = s.systemTrust(viaTLS.Field("trust_bundles"))
	} else {
		u.trust = s.useTrust(viaTLS.Field("trust_bundles"), t.GetTrustBundles())
	}
	return u
}

// via returns the egress proxy of an upstream, or nil.
func (s upstreamScope) via(u *liveUpstream) *egress.Proxy {
	const at = invalid.Path("via")
	for i, e := range u.msg.GetEndpoints() {
		if u.msg.GetVia() != nil && strings.HasPrefix(e.GetAddress(), "unix:") {
			s.Add(invalid.Path("endpoints").Index(i).Field("address"), "must be host:port where via is set: no proxy reaches a unix-domain socket")
		}
	}
	switch k := u.msg.GetVia().GetKind().(type) {
	case *adminv1.Via_HttpConnect:
		at := at.Field("http_connect")
		p := &egress.Proxy{Protocol: egress.HTTPConnect, Logger: s.job.log}
		var host string
		p.Address, host = s.proxyAddress(at, k.HttpConnect.GetAddress())
		s.credentials(at, k.HttpConnect.GetCredentials(), p)
		if t := k.HttpConnect.GetTls(); t != nil && host != "" {
			p.TLS = s.proxyTLS(u, t, host)
		}
		return p
	case *adminv1.Via_Socks5:
		at := at.Field("socks5")
		p := &egress.Proxy{Protocol: egress.SOCKS5, Logger: s.job.log}
		p.Address, _ = s.proxyAddress(at, k.Socks5.GetAddress())
		s.credentials(at, k.Socks5.GetCredentials(), p)
		return p
	}
	if u.msg.GetVia() != nil {
		s.Add(at, "http_connect or socks5 must be set")
	}
	return nil
}

// proxyAddress checks the address of an egress proxy, and returns it and its host.
func (s upstreamScope) proxyAddress(at invalid.Path, address string) (addr, host string) {
	network, addr, host, problem := dialAddress(address)
	switch {
	case problem != "":
		s.Add(at.Field("address"), "%s", strings.ReplaceAll(problem, "host:port or unix:/path", "host:port"))
	case network != "tcp":
		s.Add(at.Field("address"), "is %q; it must be host:port", address)
		return "", ""
	}
	return addr, host
}

// credentials checks the credentials for an egress proxy. Faults never quote them.
func (s upstreamScope) credentials(at invalid.Path, c *adminv1.ProxyCredentials, p *egress.Proxy) {
	if c == nil {
		return
	}
	p.Username, p.Password = c.GetUsername(), c.GetPassword()
	for _, f := range []struct{ name, value string }{{"username", p.Username}, {"password", p.Password}} {
		field := at.Field("credentials").Field(f.name)
		switch {
		case f.value == "" && (f.name == "username" || p.Protocol == egress.SOCKS5):
			s.Add(field, "must be set")
		case p.Protocol == egress.SOCKS5 && len(f.value) > 255:
			s.Add(field, "has %d bytes; SOCKS5 allows at most 255", len(f.value))
		case len(f.value) > 1024:
			s.Add(field, "has %d bytes; it must have at most 1024", len(f.value))
		case p.Protocol == egress.HTTPConnect && f.name == "username" && strings.Contains(f.value, ":"):
			s.Add(field, "must not contain a colon: it separates the username from the password")
		case strings.ContainsFunc(f.value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			s.Add(field, "must not contain control characters")
		}
	}
}

// proxyTLS returns the gateway's TLS settings for an egress proxy.
func (s upstreamScope) proxyTLS(u *liveUpstream, t *adminv1.ProxyTls, host string) *certs.Client {
	o := certs.ClientOptions{Certificate: u.uses.proxy.certificate, Trust: u.uses.proxy.trust, ServerName: host, Time: s.job.now}
	if name := strings.TrimSuffix(t.GetServerName(), "."); name != "" {
		o.ServerName = name
		if !IsHost(name) {
			s.Add(viaTLS.Field("server_name"), "is %q; it must be a DNS name or an IP address, without a port", name)
			return nil
		}
	}
	if s.Len() > 0 || lacksTrust(&o) {
		return nil // a certificate or bundle may be missing
	}
	c, err := certs.NewClient(o)
	if err != nil {
		s.addFaults(viaTLS, err)
	}
	return c
}
