package snapshot

import (
	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// httpOptions checks the options of HTTP listeners and sets them in the table.
func (s listenerScope) httpOptions(t *l7.Table, msg *adminv1.Listener) {
	o := msg.GetHttp()
	if o != nil {
		t.MaxHeaderBytes = s.count("http.max_header_bytes", o.MaxHeaderBytes, 1<<20)
		if n := o.GetMaxHeaderBytes(); n > 0 && n < 1024 {
			s.Add("http.max_header_bytes", "is %d; it must be at least 1024", n)
		}
		t.MaxHeaderFields = s.count("http.max_header_fields", o.MaxHeaderFields, 10000)
	}
	t.TrustedProxies = s.trustedProxies(o.GetTrustedProxies())
	if enum(o.GetForwarding(), adminv1.Forwarding_name) {
		t.Forwarding = forwardings[o.GetForwarding()]
	}
	if enum(o.GetClientCertificateFields(), adminv1.ClientCertificateFields_name) {
		t.ClientCertificate = certificateFields[o.GetClientCertificateFields()]
	}
	if t.ClientCertificate != policy.SendNoCertificate && msg.GetTls().GetClientAuth() <= adminv1.ClientAuth_CLIENT_AUTH_NONE {
		s.Add("http.client_certificate_fields", "has no effect while the listener requests no client certificates: set tls.client_auth, or leave it out")
	}
	if enum(o.GetTraceContext(), adminv1.TraceContext_name) {
		t.MakeTrace = o.GetTraceContext() == adminv1.TraceContext_TRACE_CONTEXT_MAKE
	}
	if enum(o.GetUnderscoreFields(), adminv1.UnderscoreFields_name) {
		t.UnderscoreFields = underscoreFields[o.GetUnderscoreFields()]
	}
	if name := o.GetRequestIdField(); name != "" {
		if err := policy.CheckRequestIDField(name); err != nil {
			s.Add("http.request_id_field", "%v", err)
		}
		t.RequestIDField = name
	}
}

var forwardings = map[adminv1.Forwarding]policy.Forwarding{
	adminv1.Forwarding_FORWARDING_UNSPECIFIED: policy.SendXForwarded,
	adminv1.Forwarding_FORWARDING_X_FORWARDED: policy.SendXForwarded,
	adminv1.Forwarding_FORWARDING_FORWARDED:   policy.SendForwarded,
	adminv1.Forwarding_FORWARDING_BOTH:        policy.SendBoth,
	adminv1.Forwarding_FORWARDING_NONE:        policy.SendNoForwarding,
}

var underscoreFields = map[adminv1.UnderscoreFields]policy.UnderscoreFields{
	adminv1.UnderscoreFields_UNDERSCORE_FIELDS_UNSPECIFIED:           policy.DropRepeatedMeaning,
	adminv1.UnderscoreFields_UNDERSCORE_FIELDS_DROP_REPEATED_MEANING: policy.DropRepeatedMeaning,
	adminv1.UnderscoreFields_UNDERSCORE_FIELDS_KEEP:                  policy.KeepUnderscores,
	adminv1.UnderscoreFields_UNDERSCORE_FIELDS_DROP_ALL:              policy.DropAllUnderscores,
}

var certificateFields = map[adminv1.ClientCertificateFields]policy.ClientCertificateFields{
	adminv1.ClientCertificateFields_CLIENT_CERTIFICATE_FIELDS_UNSPECIFIED: policy.SendNoCertificate,
	adminv1.ClientCertificateFields_CLIENT_CERTIFICATE_FIELDS_NONE:        policy.SendNoCertificate,
	adminv1.ClientCertificateFields_CLIENT_CERTIFICATE_FIELDS_IDENTITY:    policy.SendIdentity,
	adminv1.ClientCertificateFields_CLIENT_CERTIFICATE_FIELDS_RFC9440:     policy.SendCertificate,
}

// trustedProxies returns the proxies whose forwarding headers are trusted; nil trusts
// no proxy.
func (s listenerScope) trustedProxies(from []string) *cidr.Peers {
	const at = invalid.Path("http.trusted_proxies")
	if len(from) == 0 {
		return nil
	}
	peers, faults := cidr.ParsePeers(from)
	for _, f := range faults {
		s.Add(at.Index(f.Index), "%s", f.Reason)
	}
	if peers.CoversAll() {
		s.warnSecurity(warnTrustsEverybody, at, "trusts every address: any client can claim any client address")
	}
	return peers
}

// access returns the clients that are served; nil means all.
func (s listenerScope) access(a *adminv1.ClientAccess) *cidr.Access {
	set := func(p invalid.Path, texts []string) *cidr.Set {
		if len(texts) == 0 {
			return nil
		}
		set, faults := cidr.Parse(texts)
		for _, f := range faults {
			s.Add(p.Index(f.Index), "%s", f.Reason)
		}
		return set
	}
	if len(a.GetAllow())+len(a.GetDeny()) == 0 {
		return nil
	}
	return &cidr.Access{Allow: set("access.allow", a.GetAllow()), Deny: set("access.deny", a.GetDeny())}
}
