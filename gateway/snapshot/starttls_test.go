package snapshot

import (
	"slices"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestStarttlsIsRefusedWhereItHasNoMeaning(t *testing.T) {
	w := newTestbed(t)
	upgrading := func(name string, change func(*adminv1.Upstream)) *adminv1.Upstream {
		u := tlsUpstream(name, &adminv1.UpstreamTls{TrustBundles: []string{"trust"}, Starttls: adminv1.Starttls_STARTTLS_POSTGRES})
		if change != nil {
			change(u)
		}
		return u
	}
	check := func(c *adminv1.HealthCheck) func(*adminv1.Upstream) {
		return func(u *adminv1.Upstream) { u.HealthCheck = c }
	}
	hash := func(k *adminv1.HashKey) func(*adminv1.Upstream) {
		return func(u *adminv1.Upstream) {
			u.Balancing = &adminv1.Balancing{Policy: adminv1.BalancingPolicy_BALANCING_POLICY_CONSISTENT_HASH, Hash: k}
		}
	}
	w.put(w.bundle("trust"), upgrading("pg", check(&adminv1.HealthCheck{Kind: &adminv1.HealthCheck_Tls{Tls: &adminv1.TlsCheck{}}})),
		tlsUpstream("web", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}}),
		listener("tcp", "127.0.0.1:1", tcp, "pg"), listener("http", "127.0.0.1:2", httpP, "web"), forward("r", nil, "http", "web"))
	if p := w.snap.Endpoints(t.Context(), "pg", "")[0].Target.Starttls; p != starttls.Postgres {
		t.Errorf("a probe starts TLS in %v", p)
	}
	for name, test := range map[string]struct {
		put    store.Resource
		fields []invalid.Path
	}{
		"HTTP settings":                  {upgrading("pg", func(u *adminv1.Upstream) { u.Http = &adminv1.UpstreamHttp{} }), []invalid.Path{"r0.http"}},
		"idle connections":               {upgrading("pg", func(u *adminv1.Upstream) { u.Pool = &adminv1.Pool{MaxIdle: new(int32(0))} }), []invalid.Path{"r0.pool.max_idle"}},
		"an HTTP check":                  {upgrading("pg", check(&adminv1.HealthCheck{Kind: &adminv1.HealthCheck_Http{Http: &adminv1.HttpCheck{}}})), []invalid.Path{"r0.health_check.http"}},
		"a gRPC check":                   {upgrading("pg", check(&adminv1.HealthCheck{Kind: &adminv1.HealthCheck_Grpc{Grpc: &adminv1.GrpcCheck{}}})), []invalid.Path{"r0.health_check.grpc"}},
		"a hash of a header":             {upgrading("pg", hash(&adminv1.HashKey{Kind: &adminv1.HashKey_Header{Header: "X-A"}})), []invalid.Path{"r0.balancing.hash.header"}},
		"a hash of a cookie":             {upgrading("pg", hash(&adminv1.HashKey{Kind: &adminv1.HashKey_Cookie{Cookie: "a"}})), []invalid.Path{"r0.balancing.hash.cookie"}},
		"warm connections of PostgreSQL": {upgrading("pg", func(u *adminv1.Upstream) { u.Pool = &adminv1.Pool{Warm: 1} }), []invalid.Path{"r0.pool.warm"}},
		"warm connections of SMTP": {upgrading("pg", func(u *adminv1.Upstream) {
			u.GetTls().Starttls, u.Pool = adminv1.Starttls_STARTTLS_SMTP, &adminv1.Pool{Warm: 1}
		}), []invalid.Path{"r0.pool.warm"}},
		"warm connections of MySQL": {upgrading("pg", func(u *adminv1.Upstream) {
			u.GetTls().Starttls, u.Pool = adminv1.Starttls_STARTTLS_MYSQL, &adminv1.Pool{Warm: 1}
		}), []invalid.Path{"r0.pool.warm"}},
		"an HTTP listener":            {listener("http", "127.0.0.1:2", httpP, "pg"), []invalid.Path{"r0.upstream"}},
		"a route of an HTTP listener": {forward("r", nil, "http", "web", "pg"), []invalid.Path{"r0.forward.upstreams[1].name"}},
		"an upstream in use by HTTP":  {upgrading("web", nil), []invalid.Path{`listener["http"].upstream`, `route["r"].forward.upstreams[0].name`}},
	} {
		var fields []invalid.Path
		for _, f := range w.refused(test.put) {
			fields = append(fields, f.Field)
		}
		if slices.Sort(fields); !slices.Equal(fields, test.fields) {
			t.Errorf("%s: faults at %v, want %v", name, fields, test.fields)
		}
	}
}

func TestStarttlsOfClientsIsRefusedWhereItHasNoMeaning(t *testing.T) {
	w := newTestbed(t)
	postgres, ldap := adminv1.Starttls_STARTTLS_POSTGRES, adminv1.Starttls_STARTTLS_LDAP
	l := func(change func(*adminv1.ServerTls)) *adminv1.Listener {
		l := listener("l", "127.0.0.1:1", tcp, "pg")
		l.Tls = &adminv1.ServerTls{Certificates: []string{"server"}, Starttls: postgres}
		if change != nil {
			change(l.GetTls())
		}
		return l
	}
	upgrading := tlsUpstream("pg", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}, Starttls: postgres})
	w.put(w.bundle("trust"), w.server("server"), upgrading, tlsUpstream("web", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}}),
		passthroughUpstream("pass"), l(nil))
	if got := w.snap.listeners.Get("l").tcp; got.Starttls != starttls.Postgres || got.StarttlsOptional {
		t.Errorf("the table starts TLS in %v, optional %v", got.Starttls, got.StarttlsOptional)
	}
	http := l(nil)
	http.Protocol, http.Upstream = httpP, "web"
	http.GetTls().StarttlsOptional = true
	pass := l(nil)
	pass.Upstream = "pass"
	for name, test := range map[string]struct {
		put    store.Resource
		fields []invalid.Path
	}{
		"an HTTP listener":                     {http, []invalid.Path{"r0.tls.starttls", "r0.tls.starttls_optional"}},
		"a passthrough":                        {pass, []invalid.Path{"r0.tls.starttls"}},
		"a route's upstream":                   {forward("r", nil, "l", "pass"), []invalid.Path{`listener["l"].tls.starttls`}},
		"another protocol":                     {l(func(s *adminv1.ServerTls) { s.Starttls = ldap }), []invalid.Path{"r0.tls.starttls"}},
		"optional STARTTLS without a protocol": {l(func(s *adminv1.ServerTls) { s.Starttls, s.StarttlsOptional = 0, true }), []invalid.Path{"r0.tls.starttls_optional"}},
		"required names":                       {l(func(s *adminv1.ServerTls) { s.StarttlsOptional, s.RejectUnknownSni = true, true }), []invalid.Path{"r0.tls.starttls_optional"}},
		"required certificate": {l(func(s *adminv1.ServerTls) {
			s.StarttlsOptional, s.ClientAuth, s.ClientTrustBundles = true, adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, []string{"trust"}
		}), []invalid.Path{"r0.tls.starttls_optional"}},
	} {
		var fields []invalid.Path
		for _, f := range w.refused(test.put) {
			fields = append(fields, f.Field)
		}
		if slices.Sort(fields); !slices.Equal(fields, test.fields) {
			t.Errorf("%s: faults at %v, want %v", name, fields, test.fields)
		}
	}
	// In MySQL the upstream is chosen before the client's handshake.
	mysql := listener("m", "127.0.0.1:3", tcp, "plain")
	mysql.Tls = &adminv1.ServerTls{
		Certificates: []string{"server"}, Starttls: adminv1.Starttls_STARTTLS_MYSQL,
		ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"trust"},
	}
	w.put(&adminv1.Upstream{Name: "plain", Transport: &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}, Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:9"}}}, mysql, forward("any", nil, "m", "plain"))
	if got := w.snap.listeners.Get("m").tcp; got.Starttls != starttls.MySQL {
		t.Errorf("the table starts TLS in %v", got.Starttls)
	}
	for name, match := range map[string]*adminv1.RouteMatch{
		"a route by SNI":         {Hosts: []string{"a.test"}},
		"a route by certificate": {ClientIdentity: &adminv1.ClientIdentityMatch{Issuer: "CN=a"}},
	} {
		if faults := w.refused(forward("any", match, "m", "plain")); len(faults) != 1 || faults[0].Field != `listener["m"].tls.starttls` {
			t.Errorf("%s: %v", name, faults)
		}
	}
	w.put(l(func(s *adminv1.ServerTls) { s.StarttlsOptional = true }))
	if !w.snap.listeners.Get("l").tcp.StarttlsOptional {
		t.Error("TLS is not optional")
	}
}
