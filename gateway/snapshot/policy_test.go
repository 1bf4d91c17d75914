package snapshot

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// faultsAt returns the sorted paths of an edit's faults.
func faultsAt(faults []invalid.Fault) []string {
	var at []string
	for _, f := range faults {
		at = append(at, string(f.Field))
	}
	slices.Sort(at)
	return at
}

func rewritePrefix(p string) *adminv1.Rewrite {
	return &adminv1.Rewrite{Kind: &adminv1.Rewrite_Prefix{Prefix: p}}
}

func rewriteRegex(pattern, substitution string) *adminv1.Rewrite {
	return &adminv1.Rewrite{Kind: &adminv1.Rewrite_Regex{Regex: &adminv1.RegexRewrite{Pattern: pattern, Substitution: substitution}}}
}

func rewritePath(p string) *adminv1.Rewrite {
	return &adminv1.Rewrite{Kind: &adminv1.Rewrite_Path{Path: p}}
}

func TestRewritesAreChecked(t *testing.T) {
	w := newTestbed(t)
	w.put(tlsUpstream("u", nil), listener("web", "127.0.0.1:1", httpP, "u"), listener("raw", "127.0.0.1:2", tcp, "u"))
	exact := &adminv1.RouteMatch{Path: &adminv1.PathMatch{Kind: &adminv1.PathMatch_Exact{Exact: "/v2"}}}
	for name, c := range map[string]struct {
		match   *adminv1.RouteMatch
		rewrite *adminv1.Rewrite
		fields  []string
		hint    string
	}{
		"a prefix":                            {prefix("/v2"), rewritePrefix("/"), nil, ""},
		"a prefix with a slash":               {prefix("/v2/"), rewritePrefix("/api/"), nil, ""},
		"an expression":                       {exact, rewriteRegex("^/v([0-9])", "/$1"), nil, ""},
		"a path":                              {nil, rewritePath("/index.html"), nil, ""},
		"no kind":                             {nil, &adminv1.Rewrite{}, []string{"r0.forward.rewrite"}, "must be set"},
		"a prefix where the match has none":   {nil, rewritePrefix("/"), []string{"r0.forward.rewrite.prefix"}, "match.path.prefix"},
		"a prefix instead of a path":          {exact, rewritePrefix("/"), []string{"r0.forward.rewrite.prefix"}, "match.path.prefix"},
		"an invalid prefix":                   {prefix("/v2"), rewritePrefix("api"), []string{"r0.forward.rewrite.prefix"}, "slash"},
		"no prefix":                           {prefix("/v2"), rewritePrefix(""), []string{"r0.forward.rewrite.prefix"}, "slash"},
		"a prefix that is not in normal form": {prefix("/v2"), rewritePrefix("/a/../b"), []string{"r0.forward.rewrite.prefix"}, `write "/b"`},
		"a prefix where the match has an invalid one": {prefix("v2"), rewritePrefix("/"), []string{"r0.match.path"}, "slash"},
		"a path with a query":                         {nil, rewritePath("/x?y"), []string{"r0.forward.rewrite.path"}, "query"},
		"no expression":                               {nil, rewriteRegex("", "x"), []string{"r0.forward.rewrite.regex.pattern"}, "empty"},
		"a broken expression":                         {nil, rewriteRegex("(", "x"), []string{"r0.forward.rewrite.regex.pattern"}, "RE2"},
		"a huge expression":                           {nil, rewriteRegex(strings.Repeat("[a-c]{999}", 12), "x"), []string{"r0.forward.rewrite.regex.pattern"}, "repeat less"},
		"an invalid group":                            {nil, rewriteRegex("(a)", "$2"), []string{"r0.forward.rewrite.regex.substitution"}, "$2"},
	} {
		r := forward("r", c.match, "web", "u")
		r.GetForward().Rewrite = c.rewrite
		if c.fields == nil {
			w.put(r)
			rewritten := func(path string) bool {
				return w.snap.HTTP("web").Resolve(l7.Question{Method: "GET", Host: "a", Target: path}).Action.Forward.Rewrite != nil
			}
			if !rewritten("/v2") && !rewritten("/v2/") {
				t.Errorf("%s: the path is not rewritten", name)
			}
			continue
		}
		faults := w.refused(r)
		if !slices.Equal(faultsAt(faults), c.fields) || !strings.Contains(faults[0].Message, c.hint) {
			t.Errorf("%s: %v, want %v and a hint of %q", name, faults, c.fields, c.hint)
		}
	}
	r := forward("raw", nil, "raw", "u")
	r.GetForward().Rewrite = rewritePath("/x")
	if faults := w.refused(r); !slices.Equal(faultsAt(faults), []string{"r0.forward.rewrite"}) || !strings.Contains(faults[0].Message, "PROTOCOL_TCP") {
		t.Errorf("on a TCP listener: %v", faults)
	}
}

func TestVariablesAreChecked(t *testing.T) {
	w := newTestbed(t)
	w.put(tlsUpstream("u", nil), listener("web", "127.0.0.1:1", httpP, "u"))
	value := func(v string) *adminv1.HeaderValue { return &adminv1.HeaderValue{Name: "X-A", Value: v} }
	r := forward("r", nil, "web", "u")
	r.RequestHeaders = &adminv1.HeaderRules{Set: []*adminv1.HeaderValue{value("${client_address} $$"), value("${missing}")}, Add: []*adminv1.HeaderValue{value("${host"), value("${endpoint}")}}
	r.ResponseHeaders = &adminv1.HeaderRules{Add: []*adminv1.HeaderValue{value("${endpoint}"), value("$host")}}
	faults := w.refused(r)
	want := []string{"r0.request_headers.add[0].value", "r0.request_headers.add[1].value", "r0.request_headers.set[1].value", "r0.response_headers.add[1].value"}
	if !slices.Equal(faultsAt(faults), want) {
		t.Errorf("%v, want %v", faults, want)
	}
	for _, f := range faults {
		if f.Field == "r0.request_headers.set[1].value" && !strings.Contains(f.Message, "${client_address}, ${client_port}") {
			t.Errorf("the error does not list the variables: %v", f)
		}
	}
}

func TestOptionsOfHTTPListenersAreChecked(t *testing.T) {
	w := newTestbed(t)
	w.put(tlsUpstream("u", nil), w.server("server"), w.bundle("clients"))
	for name, c := range map[string]struct {
		change func(*adminv1.Listener)
		fields []string
	}{
		"fields": {func(l *adminv1.Listener) { l.Http.MaxHeaderFields = new(int32(10001)) }, []string{"r0.http.max_header_fields"}},
		"bytes":  {func(l *adminv1.Listener) { l.Http.MaxHeaderBytes = new(int32(1023)) }, []string{"r0.http.max_header_bytes"}},
		"proxies": {func(l *adminv1.Listener) {
			l.Http.TrustedProxies = []string{"10.0.0.0/8", "lb.example", "unix:", "10.1.2.3/8"}
		}, []string{"r0.http.trusted_proxies[1]", "r0.http.trusted_proxies[3]"}},
		"access": {func(l *adminv1.Listener) {
			l.Access = &adminv1.ClientAccess{Allow: []string{"10.0.0.0/8", "unix:"}, Deny: []string{"10.0.0.1/8"}}
		}, []string{"r0.access.allow[1]", "r0.access.deny[0]"}},
		"forwarding":             {func(l *adminv1.Listener) { l.Http.Forwarding = 99 }, []string{"r0.http.forwarding"}},
		"underscores":            {func(l *adminv1.Listener) { l.Http.UnderscoreFields = 99 }, []string{"r0.http.underscore_fields"}},
		"trace context":          {func(l *adminv1.Listener) { l.Http.TraceContext = 99 }, []string{"r0.http.trace_context"}},
		"a certificate's fields": {func(l *adminv1.Listener) { l.Http.ClientCertificateFields = 99 }, []string{"r0.http.client_certificate_fields", "r0.http.client_certificate_fields"}},
		"certificate fields of a plaintext client": {func(l *adminv1.Listener) {
			l.Http.ClientCertificateFields = adminv1.ClientCertificateFields_CLIENT_CERTIFICATE_FIELDS_IDENTITY
		}, []string{"r0.http.client_certificate_fields"}},
		"certificate fields although none is requested": {func(l *adminv1.Listener) {
			l.Tls = &adminv1.ServerTls{Certificates: []string{"server"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_NONE}
			l.Http.ClientCertificateFields = adminv1.ClientCertificateFields_CLIENT_CERTIFICATE_FIELDS_RFC9440
		}, []string{"r0.http.client_certificate_fields"}},
		"a field for the request ID":                {func(l *adminv1.Listener) { l.Http.RequestIdField = "a b" }, []string{"r0.http.request_id_field"}},
		"a framing field for the request ID":        {func(l *adminv1.Listener) { l.Http.RequestIdField = "Content-Length" }, []string{"r0.http.request_id_field"}},
		"a field of the gateway for the request ID": {func(l *adminv1.Listener) { l.Http.RequestIdField = "X_Forwarded_For" }, []string{"r0.http.request_id_field"}},
		"HTTP options on a TCP listener": {func(l *adminv1.Listener) {
			l.Protocol = tcp
			l.Http.TrustedProxies, l.Http.RequestIdField = []string{"10.0.0.1"}, "X-Request-Id"
		}, []string{"r0.http"}},
		"access on TCP": {func(l *adminv1.Listener) {
			l.Protocol, l.Http, l.Access = tcp, nil, &adminv1.ClientAccess{Deny: []string{"all"}}
		}, []string{"r0.access.deny[0]"}},
	} {
		l := listener("l", "127.0.0.1:1", httpP, "u")
		l.Http = &adminv1.HttpOptions{}
		c.change(l)
		got := slices.Compact(faultsAt(w.refused(l)))
		if want := slices.Compact(slices.Clone(c.fields)); !slices.Equal(got, want) {
			t.Errorf("%s: faults at %v, want %v", name, got, want)
		}
	}
}

// The fields of a listener reach its table.
func TestOptionsOfHTTPListenersReachTheirTable(t *testing.T) {
	w := newTestbed(t)
	l := listener("l", "127.0.0.1:1", httpP, "u")
	l.Tls = &adminv1.ServerTls{Certificates: []string{"server"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL, ClientTrustBundles: []string{"clients"}}
	l.Access = &adminv1.ClientAccess{Allow: []string{"10.0.0.0/8"}, Deny: []string{"10.0.0.9"}}
	l.Http = &adminv1.HttpOptions{
		MaxHeaderFields: new(int32(7)), TrustedProxies: []string{"192.0.2.1"}, Forwarding: adminv1.Forwarding_FORWARDING_BOTH,
		ClientCertificateFields: adminv1.ClientCertificateFields_CLIENT_CERTIFICATE_FIELDS_RFC9440,
		TraceContext:            adminv1.TraceContext_TRACE_CONTEXT_MAKE, RequestIdField: "X-Request-Id",
		UnderscoreFields: adminv1.UnderscoreFields_UNDERSCORE_FIELDS_DROP_ALL,
	}
	raw := listener("raw", "127.0.0.1:2", tcp, "u")
	raw.Access = l.GetAccess()
	w.put(tlsUpstream("u", nil), w.server("server"), w.bundle("clients"), l, raw, listener("plain", "127.0.0.1:3", httpP, "u"))
	table := w.snap.HTTP("l")
	if table.MaxHeaderFields != 7 || table.Forwarding != policy.SendBoth || table.ClientCertificate != policy.SendCertificate || !table.MakeTrace || table.UnderscoreFields != policy.DropAllUnderscores || table.RequestIDField != "X-Request-Id" {
		t.Errorf("%+v", table)
	}
	proxy, client := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.0.0.1")
	if !table.TrustedProxies.HasAddress(proxy) || table.TrustedProxies.HasAddress(client) {
		t.Error("trusts an untrusted peer")
	}
	for name, a := range map[string]interface{ Serves(netip.Addr) bool }{"http": table.Access, "tcp": w.snap.TCP("raw").Access} {
		if !a.Serves(client) || a.Serves(proxy) || a.Serves(netip.MustParseAddr("10.0.0.9")) {
			t.Errorf("%s: admits a client without access", name)
		}
	}
	plain := w.snap.HTTP("plain")
	if plain.Access != nil || plain.TrustedProxies != nil || plain.Forwarding != policy.SendXForwarded || plain.ClientCertificate != policy.SendNoCertificate || plain.MakeTrace || plain.RequestIDField != "" {
		t.Errorf("by default: %+v", plain)
	}
	for kind, want := range map[adminv1.Forwarding]policy.Forwarding{
		adminv1.Forwarding_FORWARDING_X_FORWARDED: policy.SendXForwarded, adminv1.Forwarding_FORWARDING_FORWARDED: policy.SendForwarded,
		adminv1.Forwarding_FORWARDING_NONE: policy.SendNoForwarding,
	} {
		l := proto.Clone(l).(*adminv1.Listener)
		l.Http.Forwarding, l.Http.ClientCertificateFields = kind, adminv1.ClientCertificateFields_CLIENT_CERTIFICATE_FIELDS_IDENTITY
		w.put(l)
		if table := w.snap.HTTP("l"); table.Forwarding != want || table.ClientCertificate != policy.SendIdentity {
			t.Errorf("%v: %+v", kind, table)
		}
	}
}

func TestTrustingEveryAddressCausesAWarning(t *testing.T) {
	w := newTestbed(t)
	l := listener("l", "127.0.0.1:1", httpP, "u")
	l.Http = &adminv1.HttpOptions{TrustedProxies: []string{"::/0"}}
	warnings := w.put(tlsUpstream("u", nil), l)
	if len(warnings) != 1 || warnings[0].Field != "r1.http.trusted_proxies" || len(w.snap.SecurityWarnings()) != 1 {
		t.Errorf("%v, standing %v", warnings, w.snap.SecurityWarnings())
	}
}

func TestRewrittenPathsAreExplained(t *testing.T) {
	w := newTestbed(t)
	v2 := forward("v2", prefix("/v2/"), "web", "u")
	v2.GetForward().Rewrite = rewritePrefix("/api")
	parts := forward("parts", prefix("/parts"), "web", "u")
	parts.GetForward().Rewrite = rewriteRegex("-", "/")
	w.put(tlsUpstream("u", nil), listener("web", "127.0.0.1:1", httpP, "u"), v2, parts)
	for path, want := range map[string]string{"/v2/x?y": "/api/x", "/other": "/other"} {
		if got := w.explain(&adminv1.ExplainRouteRequest{Listener: "web", Path: path}); got.GetUpstreamPath() != want || got.GetAction() != adminv1.ExplainedAction_EXPLAINED_ACTION_FORWARD {
			t.Errorf("%s: %v", path, got)
		}
	}
	got := w.explain(&adminv1.ExplainRouteRequest{Listener: "web", Path: "/parts/-..-..-x"})
	if got.GetAction() != adminv1.ExplainedAction_EXPLAINED_ACTION_REFUSE || got.GetCode() != 400 || got.GetUpstreamPath() != "" || !strings.Contains(got.GetWhy(), "rewritten by route parts") {
		t.Errorf("%v", got)
	}
}

// A redirect to https does not match requests that already use https, over TLS or
// according to a trusted proxy.
func TestRedirectsToTheCurrentSchemeDoNotApply(t *testing.T) {
	w := newTestbed(t)
	front := listener("front", "127.0.0.1:2", httpP, "u")
	front.Http = &adminv1.HttpOptions{TrustedProxies: []string{"10.0.0.1"}}
	secure := listener("secure", "127.0.0.1:3", httpP, "u")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"server"}}
	to := redirectTo("to-https", nil, "web")
	to.Listeners = []string{"web", "front", "secure"}
	elsewhere := redirectTo("elsewhere", &adminv1.RouteMatch{Hosts: []string{"old.example"}}, "secure")
	elsewhere.GetRedirect().Host = "new.example"
	w.put(tlsUpstream("u", nil), w.server("server"), listener("web", "127.0.0.1:1", httpP, "u"), front, secure, to, elsewhere)
	https := map[string]string{"X-Forwarded-Proto": "https"}
	for name, c := range map[string]struct {
		ask    *adminv1.ExplainRouteRequest
		action adminv1.ExplainedAction
		why    string
	}{
		"plaintext": {&adminv1.ExplainRouteRequest{Listener: "web"}, adminv1.ExplainedAction_EXPLAINED_ACTION_REDIRECT, "the scheme is not https yet"},
		"a header says https, but no proxy is trusted": {&adminv1.ExplainRouteRequest{Listener: "web", Headers: https}, adminv1.ExplainedAction_EXPLAINED_ACTION_REDIRECT, "the scheme is not https yet"},
		"a proxy":                    {&adminv1.ExplainRouteRequest{Listener: "front"}, adminv1.ExplainedAction_EXPLAINED_ACTION_REDIRECT, ""},
		"a trusted proxy says https": {&adminv1.ExplainRouteRequest{Listener: "front", Headers: https}, adminv1.ExplainedAction_EXPLAINED_ACTION_FORWARD, "the scheme is https already"},
		"TLS":                        {&adminv1.ExplainRouteRequest{Listener: "secure", Host: "a.example"}, adminv1.ExplainedAction_EXPLAINED_ACTION_FORWARD, "the scheme is https already"},
		"TLS, but a new host":        {&adminv1.ExplainRouteRequest{Listener: "secure", Host: "old.example"}, adminv1.ExplainedAction_EXPLAINED_ACTION_REDIRECT, "old.example"},
	} {
		if got := w.explain(c.ask); got.GetAction() != c.action || !strings.Contains(got.GetWhy(), c.why) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
