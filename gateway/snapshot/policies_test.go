package snapshot

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// policied returns a listener with base settings and two policies.
func policied(p adminv1.Protocol, upstream string) *adminv1.Listener {
	l := listener("front", "127.0.0.1:1", p, upstream)
	l.Tls = &adminv1.ServerTls{Certificates: []string{"base"}, Policies: []*adminv1.TlsPolicy{
		{Hosts: []string{"mtls.example", "*.mtls.example"}, Certificates: []string{"mtls"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"clients"}},
		{Hosts: []string{"old.example"}, Certificates: []string{"old"}, MinVersion: adminv1.TlsVersion_TLS_VERSION_1_1},
	}}
	return l
}

func (w *testbed) putPolicies(p adminv1.Protocol) *adminv1.Listener {
	l := policied(p, "up")
	w.put(w.bundle("clients"), pemCertificate("base", w.ca.Server(w.t, "base.example")), pemCertificate("mtls", w.ca.Server(w.t, "mtls.example", "*.mtls.example")),
		pemCertificate("old", w.ca.Server(w.t, "old.example")), tlsUpstream("up", nil), l)
	return l
}

// Every fault of the policies is reported at its field.
func TestPoliciesAreChecked(t *testing.T) {
	w := newTestbed(t)
	l := w.putPolicies(httpP)
	l.Tls.Policies = []*adminv1.TlsPolicy{
		{Certificates: []string{"base"}},
		{Hosts: []string{"a.example", "A.example.", "*.a.example", "10.0.0.1", "[::1]", "*", "a*.example", ""}, Certificates: []string{"base", "base"}},
		{Hosts: []string{"*.A.example"}},
		{Hosts: []string{"b.example"}, Certificates: []string{"nowhere"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED},
		{Hosts: []string{"c.example"}, Certificates: []string{"base"}, ClientTrustBundles: []string{"clients"}, ClientSubjectAltNames: []string{"DNS:a b"}},
		{Hosts: []string{"d.example"}, Certificates: []string{"base"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL, ClientTrustBundles: []string{"gone", "clients", "clients"}},
		{Hosts: []string{"e.example"}, Certificates: []string{"base"}, MaxVersion: adminv1.TlsVersion_TLS_VERSION_1_1, CipherSuites: []string{"NONE"}, Groups: []string{"P-1"}, Alpn: []string{"h3"}},
	}
	var got []string
	for _, f := range w.refused(l) {
		got = append(got, f.String())
	}
	for _, want := range []string{
		"policies[0].hosts must name at least one host",
		"policies[1].hosts[1] is \"a.example\", which is in the list twice",
		"policies[1].hosts[3] is the address 10.0.0.1",
		"policies[1].hosts[4] is the address [::1]",
		"policies[1].hosts[5]", "policies[1].hosts[6]", "policies[1].hosts[7]",
		"policies[1].certificates[1] is \"base\", which is in the list twice",
		"policies[2].hosts[0] is \"*.a.example\", which is also a host of tls.policies[1]",
		"policies[2].certificates must name at least one",
		"policies[3].certificates[0]",
		"policies[3].client_trust_bundles must name at least one trust bundle",
		"policies[4].client_trust_bundles has no effect",
		"policies[4].client_subject_alt_names has no effect",
		"policies[4].client_subject_alt_names[0]",
		"policies[5].client_trust_bundles[0]",
		"policies[5].client_trust_bundles[2] is \"clients\", which is in the list twice",
		"policies[6].min_version must be set too",
		"policies[6].cipher_suites", "policies[6].groups", "policies[6].alpn[0]",
	} {
		if !slices.ContainsFunc(got, func(f string) bool { return strings.Contains(strings.NewReplacer(": ", " ").Replace(f), "tls."+want) }) {
			t.Errorf("no fault %q", want)
		}
	}
	if t.Failed() {
		t.Log(strings.Join(got, "\n"))
	}
}

func TestPolicyWithoutACertificateForItsHostCausesAWarning(t *testing.T) {
	w := newTestbed(t)
	l := w.putPolicies(tcp)
	l.Tls.Policies[1].Hosts = []string{"old.example", "*.old.example"}
	warnings := w.put(l)
	if !slices.ContainsFunc(warnings, func(w invalid.Warning) bool {
		return w.Code == warnCertificate && w.Field == "r0.tls.policies[1].hosts[1]" && strings.Contains(w.Message, "*.old.example")
	}) {
		t.Errorf("%v", warnings)
	}
}

// An unchanged policy keeps its Server, and with it the sessions of its clients,
// when other policies change.
func TestUnchangedPoliciesKeepTheirServer(t *testing.T) {
	w := newTestbed(t)
	l := w.putPolicies(tcp)
	names := []string{"base.example", "mtls.example", "old.example"}
	servers := func() (out []*certs.Server) {
		for _, name := range names {
			out = append(out, w.snap.TCP("front").TLS.For(name))
		}
		return out
	}
	before := servers()
	if before[0] == before[1] || before[1] == before[2] || before[0] == before[2] {
		t.Fatal("two policies share a Server")
	}
	for _, step := range []struct {
		what    string
		change  func(*adminv1.ServerTls)
		changed []bool
	}{
		{"the base", func(t *adminv1.ServerTls) { t.MinVersion = adminv1.TlsVersion_TLS_VERSION_1_3 }, []bool{true, false, false}},
		{"the order", func(t *adminv1.ServerTls) { slices.Reverse(t.Policies) }, []bool{false, false, false}},
		{"a policy with one more host", func(t *adminv1.ServerTls) { t.Policies[0].Hosts = append(t.Policies[0].Hosts, "older.example") }, []bool{false, false, false}},
		{"client authentication", func(t *adminv1.ServerTls) { t.Policies[1].ClientAuth = adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL }, []bool{false, true, false}},
		{"one policy removed", func(t *adminv1.ServerTls) { t.Policies = t.Policies[1:] }, []bool{false, false, true}},
	} {
		l = proto.Clone(l).(*adminv1.Listener)
		step.change(l.Tls)
		w.put(l)
		after := servers()
		for i, name := range names {
			if got := after[i] != before[i]; got != step.changed[i] {
				t.Errorf("%s: the Server of %s changed: %v, want %v", step.what, name, got, step.changed[i])
			}
		}
		before = after
	}
	w.put(pemCertificate("mtls", w.ca.Server(t, "mtls.example")))
	if after := servers(); after[0] != before[0] || after[1] == before[1] {
		t.Error("a new certificate of one policy: the base changed, or the policy did not")
	}
	// Policies of two hosts with common settings must not share tickets.
	l = proto.Clone(l).(*adminv1.Listener)
	l.Tls.Policies = []*adminv1.TlsPolicy{{Hosts: []string{"a.example"}, Certificates: []string{"old"}}, {Hosts: []string{"b.example"}, Certificates: []string{"old"}}}
	w.put(l)
	names = []string{"a.example", "b.example"}
	if s := servers(); s[0] == s[1] {
		t.Error("two policies share a Server")
	}
}

func TestPoliciesAreExplained(t *testing.T) {
	w := newTestbed(t)
	w.putPolicies(httpP)
	for _, c := range []struct{ sni, host, field, action, why string }{
		{"", "base.example", "tls", "forward 0", ""},
		{"", "A.MTLS.example:443", "tls.policies[0]", "forward 0", ""},
		{"", "10.0.0.1", "tls", "forward 0", ""},
		{"base.example", "mtls.example", "tls", "refuse 421", `the connection was made for the SNI "base.example", whose TLS policy (tls) is not that of the host (tls.policies[0])`},
		{"old.example", "base.example", "tls.policies[1]", "refuse 421", "(tls.policies[1]) is not that of the host (tls)"},
		{"mtls.example", "x.mtls.example", "tls.policies[0]", "forward 0", ""},
	} {
		got := w.explain(&adminv1.ExplainRouteRequest{Listener: "front", Sni: c.sni, Host: c.host})
		if p := got.GetTlsPolicy(); p.GetField() != c.field || actionOf(got) != c.action || !strings.Contains(got.GetWhy(), c.why) {
			t.Errorf("SNI %q, host %q: %v", c.sni, c.host, got)
		}
	}
	got := w.explain(&adminv1.ExplainRouteRequest{Listener: "front", Host: "mtls.example"}).GetTlsPolicy()
	want := &adminv1.ExplainedTlsPolicy{
		Field: "tls.policies[0]", Hosts: []string{"mtls.example", "*.mtls.example"}, Certificates: []string{"mtls"},
		ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"clients"},
	}
	if !proto.Equal(got, want) {
		t.Errorf("%v", got)
	}

	w = newTestbed(t)
	w.putPolicies(tcp)
	for _, c := range []struct{ sni, field, action string }{
		{"", "tls", "forward 0"}, {"x.mtls.example", "tls.policies[0]", "forward 0"}, {"mtls.example:443", "", "refuse 0"},
	} {
		got := w.explain(&adminv1.ExplainRouteRequest{Listener: "front", Sni: c.sni})
		if got.GetTlsPolicy().GetField() != c.field || actionOf(got) != c.action {
			t.Errorf("SNI %q: %v", c.sni, got)
		}
	}
}

// A resource that a policy names counts as in use: it cannot be deleted, and the
// fault names the policy.
func TestReferencesOfPoliciesCount(t *testing.T) {
	w := newTestbed(t)
	w.putPolicies(tcp)
	front := store.Ref{Kind: adminv1.Kind_KIND_LISTENER, Name: "front"}
	for _, r := range []store.Ref{{Kind: adminv1.Kind_KIND_CERTIFICATE, Name: "mtls"}, {Kind: adminv1.Kind_KIND_TRUST_BUNDLE, Name: "clients"}} {
		if got := slices.Collect(w.snap.State().Users(r)); !slices.Equal(got, []store.Ref{front}) {
			t.Errorf("users of %s: %v", r, got)
		}
		_, _, bad := w.try(store.Edit{Deletes: []store.Delete{{Path: "name", Kind: r.Kind, Name: r.Name}}})
		if faults := bad.Faults(); !strings.Contains(fmt.Sprint(faults), `is still used by listener "front" (tls.policies[0].`) {
			t.Errorf("a delete of %s: %v", r, faults)
		}
	}
}

// byName returns a match of clients by the names in their certificates.
func byName(names ...string) *adminv1.RouteMatch {
	return &adminv1.RouteMatch{ClientIdentity: &adminv1.ClientIdentityMatch{SubjectAltNames: names}}
}

func TestClientIdentitiesOfRoutesAreChecked(t *testing.T) {
	w := newTestbed(t)
	w.putPolicies(httpP)
	secure := listener("secure", "127.0.0.1:2", tcp, "up")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"base"}}
	w.put(listener("plain", "127.0.0.1:3", httpP, "up"), secure, passthroughUpstream("pass"), forward("taken", byName("spiffe://corp/*/a"), "front", "up"))
	for _, c := range []struct {
		route *adminv1.Route
		want  string
	}{
		{forward("r", byName("a.example"), "plain", "up"), `r0.match.client_identity: needs client certificates, and listener "plain" has no tls`},
		{forward("r", byName("a.example"), "secure", "up"), `r0.match.client_identity: needs client certificates, and listener "secure" requests none`},
		{forward("r", byName("a.example", "*.example"), "front", "up"), `r0.match.client_identity.subject_alt_names[1]: "*.example": "*" can only stand`},
		{forward("r", byName(), "front", "up"), "r0.match.client_identity: must have"},
		{forward("r", byName("spiffe://corp/x/*"), "front", "up"), `r0.match: is ambiguous with route "taken": both match client name "URI:spiffe://corp/`},
	} {
		if faults := w.refused(c.route); !strings.HasPrefix(faults[0].String(), c.want) {
			t.Errorf("%v, want %s", faults, c.want)
		}
	}
	// If the listener no longer requested certificates, the route would match no
	// client.
	front := policied(httpP, "up")
	front.Tls.Policies[0].ClientAuth, front.Tls.Policies[0].ClientTrustBundles = adminv1.ClientAuth_CLIENT_AUTH_NONE, nil
	if faults := w.refused(front); !strings.Contains(fmt.Sprint(faults), `requests none`) {
		t.Errorf("%v", faults)
	}
}

func TestRoutesByClientIdentityAreExplained(t *testing.T) {
	for _, p := range []adminv1.Protocol{httpP, tcp} {
		w := newTestbed(t)
		w.putPolicies(p)
		w.put(forward("staff", byName("spiffe://corp/staff/*"), "front", "up"))
		for _, c := range []struct {
			sni        string
			client     *adminv1.ExplainedClient
			route, why string
		}{
			{"mtls.example", &adminv1.ExplainedClient{SubjectAltNames: []string{"URI:spiffe://corp/staff/alice"}}, "staff", "the client's certificate matches spiffe://corp/staff/*"},
			{"mtls.example", &adminv1.ExplainedClient{SubjectAltNames: []string{"URI:spiffe://corp/guests/alice"}}, "", "the client's certificate does not match spiffe://corp/staff/*"},
			{"mtls.example", nil, "", "the client has no verified certificate, and must match spiffe://corp/staff/*"},
			// The base requests no certificate, so the client has no verified one.
			{"base.example", &adminv1.ExplainedClient{SubjectAltNames: []string{"URI:spiffe://corp/staff/alice"}}, "", "the client has no verified certificate"},
		} {
			q := &adminv1.ExplainRouteRequest{Listener: "front", Sni: c.sni, ClientIdentity: c.client}
			if p == httpP {
				q.Host = c.sni
			}
			if got := w.explain(q); got.GetRoute() != c.route || !strings.Contains(got.GetWhy(), c.why) {
				t.Errorf("%v: %v", q, got)
			}
		}
		var bad invalid.List
		w.snap.Explain(&adminv1.ExplainRouteRequest{Listener: "front", ClientIdentity: &adminv1.ExplainedClient{SubjectAltNames: []string{"spiffe://corp/*"}, Sha256Fingerprint: "x", Issuer: "x"}}, &bad)
		if text := fmt.Sprint(bad.Faults()); len(bad.Faults()) != 3 || !strings.Contains(text, "client_identity.subject_alt_names[0]") {
			t.Errorf("%s", text)
		}
	}
}

// A listener that accepts server certificates from clients has a warning as
// long as it does.
func TestMissingClientAuthUsageCausesAWarning(t *testing.T) {
	w := newTestbed(t)
	l := w.putPolicies(httpP)
	l.Tls.Policies[0].AllowMissingClientAuthUsage = true
	l.Tls.Policies[1].AllowMissingClientAuthUsage = true
	if faults := w.refused(l); len(faults) != 1 || !strings.HasPrefix(faults[0].String(), "r0.tls.policies[1].allow_missing_client_auth_usage: has no effect") {
		t.Errorf("%v", faults)
	}
	l.Tls.Policies[1].AllowMissingClientAuthUsage = false
	is := func(at invalid.Path) func(invalid.Warning) bool {
		return func(w invalid.Warning) bool { return w.Code == warnClientAuthUsage && w.Field == at }
	}
	if warnings := w.put(l); !slices.ContainsFunc(warnings, is("r0.tls.policies[0].allow_missing_client_auth_usage")) {
		t.Errorf("%v", warnings)
	}
	w.put(tlsUpstream("other", nil))
	if got := w.snap.SecurityWarnings(); !slices.ContainsFunc(got, is(`listener["front"].tls.policies[0].allow_missing_client_auth_usage`)) {
		t.Errorf("%v", got)
	}
}
