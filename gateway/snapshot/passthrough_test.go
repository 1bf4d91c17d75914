package snapshot

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func passthroughUpstream(name string) *adminv1.Upstream {
	u := tlsUpstream(name, nil)
	u.Transport = &adminv1.Upstream_Passthrough{Passthrough: &adminv1.Passthrough{}}
	return u
}

// hosts returns a match of host names.
func hosts(names ...string) *adminv1.RouteMatch { return &adminv1.RouteMatch{Hosts: names} }

func TestMisplacedPassthroughIsRefused(t *testing.T) {
	w := newTestbed(t)
	secure := func(l *adminv1.Listener) *adminv1.Listener {
		l.Tls = &adminv1.ServerTls{Certificates: []string{"server"}}
		return l
	}
	w.put(w.bundle("trust"), w.server("server"), passthroughUpstream("pass"), tlsUpstream("bridge", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}}),
		listener("plain", "127.0.0.1:1", tcp, ""), secure(listener("tls", "127.0.0.1:2", tcp, "bridge")), listener("web", "127.0.0.1:3", httpP, "bridge"),
		forward("a", hosts("a.test"), "plain", "pass"), forward("b", hosts("b.test"), "tls", "pass"))
	if l := w.snap.TCP("plain"); !l.Peek || l.TLS != nil {
		t.Errorf("plain: %+v", l)
	}
	if l := w.snap.TCP("tls"); !l.Peek || l.TLS == nil || l.Default.Passthrough {
		t.Errorf("tls: %+v", l)
	}
	odd := passthroughUpstream("odd")
	odd.Pool, odd.Http = &adminv1.Pool{MaxIdle: new(int32(1))}, &adminv1.UpstreamHttp{}
	odd.Timeouts = &adminv1.UpstreamTimeouts{Handshake: durationpb.New(time.Second)}
	odd.Tcp = &adminv1.UpstreamTcp{ServerSpeaksFirst: true}
	for name, test := range map[string]struct {
		puts   []store.Resource
		fields []invalid.Path
	}{
		"settings that passthrough cannot use":                           {[]store.Resource{odd}, []invalid.Path{"r0.http", "r0.pool", "r0.tcp.server_speaks_first", "r0.timeouts.handshake"}},
		"a route of an HTTP listener":                                    {[]store.Resource{forward("c", nil, "web", "pass")}, []invalid.Path{"r0.forward.upstreams[0].name"}},
		"an HTTP listener's own upstream":                                {[]store.Resource{listener("web", "127.0.0.1:3", httpP, "pass")}, []invalid.Path{"r0.upstream"}},
		"a route that mixes passthrough and decryption":                  {[]store.Resource{forward("b", hosts("b.test"), "tls", "pass", "bridge")}, []invalid.Path{"r0.forward.upstreams"}},
		"a plaintext listener that passes only some connections through": {[]store.Resource{listener("plain", "127.0.0.1:1", tcp, "bridge")}, []invalid.Path{"r0.tls"}},
		"names, mixed with decrypted connections": {[]store.Resource{listener("plain2", "127.0.0.1:4", tcp, "bridge"), forward("d", hosts("d.test"), "plain2", "bridge")},
			[]invalid.Path{"r1.match.hosts"}},
		// A valid route becomes invalid when its upstream changes.
		"an upstream that becomes passthrough": {[]store.Resource{tlsUpstream("pass", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}})},
			[]invalid.Path{`route["a"].match.hosts`}},
		"an HTTP upstream that becomes passthrough": {[]store.Resource{passthroughUpstream("bridge")}, []invalid.Path{`listener["web"].upstream`}},
	} {
		var fields []invalid.Path
		for _, f := range w.refused(test.puts...) {
			fields = append(fields, f.Field)
		}
		if slices.Sort(fields); !slices.Equal(fields, test.fields) {
			t.Errorf("%s: faults at %v, want %v", name, fields, test.fields)
		}
	}
}

func TestExplainPassthrough(t *testing.T) {
	w := newTestbed(t)
	w.put(passthroughUpstream("pass"), listener("plain", "127.0.0.1:1", tcp, ""), forward("a", hosts("a.test"), "plain", "pass"))
	var bad invalid.List
	got := w.snap.Explain(&adminv1.ExplainRouteRequest{Listener: "plain", Sni: "a.test"}, &bad)
	if bad.Len() > 0 || got.GetRoute() != "a" || len(got.GetUpstreams()) != 1 || !got.GetUpstreams()[0].GetPassthrough() || got.GetUpstreams()[0].GetEndpoints()[0].GetTls() {
		t.Errorf("%v, %v", got, bad.Faults())
	}
	if got = w.snap.Explain(&adminv1.ExplainRouteRequest{Listener: "plain", Sni: "b.test"}, &bad); got.GetAction() != adminv1.ExplainedAction_EXPLAINED_ACTION_REFUSE {
		t.Errorf("another name: %v", got)
	}
}

// A route with a client identity gets a warning if another route, or the listener,
// passes through the TLS of its clients.
func TestPassthroughForTheHostOfAnIdentityCausesAWarning(t *testing.T) {
	identity := func(r *adminv1.Route) *adminv1.Route {
		if r.Match == nil {
			r.Match = &adminv1.RouteMatch{}
		}
		r.Match.ClientIdentity = &adminv1.ClientIdentityMatch{SubjectAltNames: []string{"alice.test"}}
		return r
	}
	for name, c := range map[string]struct {
		own    string // the listener's own upstream
		routes []store.Resource
		want   string
	}{
		"passed through by a route":               {"bridge", []store.Resource{identity(forward("a", hosts("a.test", "b.test"), "tls", "bridge")), forward("p", hosts("a.test"), "tls", "pass")}, "SNI is a.test:"},
		"passed through by a wildcard route":      {"bridge", []store.Resource{identity(forward("a", hosts("*.a.test"), "tls", "bridge")), forward("p", hosts("*.a.test"), "tls", "pass")}, "SNI is *.a.test:"},
		"passed through by the listener":          {"pass", []store.Resource{identity(forward("a", hosts("a.test"), "tls", "bridge"))}, "SNI is a.test:"},
		"without hosts":                           {"pass", []store.Resource{identity(forward("a", nil, "tls", "bridge"))}, "SNI is any other name:"},
		"an identity for another host":            {"bridge", []store.Resource{identity(forward("a", hosts("a.test"), "tls", "bridge")), forward("p", hosts("b.test"), "tls", "pass")}, ""},
		"an identity for a host below a wildcard": {"bridge", []store.Resource{identity(forward("a", hosts("x.a.test"), "tls", "bridge")), forward("p", hosts("*.a.test"), "tls", "pass"), forward("x", hosts("x.a.test"), "tls", "bridge")}, ""},
		"no route with passthrough":               {"bridge", []store.Resource{identity(forward("a", hosts("a.test"), "tls", "bridge"))}, ""},
	} {
		w := newTestbed(t)
		l := listener("tls", "127.0.0.1:2", tcp, c.own)
		l.Tls = &adminv1.ServerTls{Certificates: []string{"server"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"trust"}}
		warnings := w.put(append([]store.Resource{w.bundle("trust"), w.server("server"), passthroughUpstream("pass"),
			tlsUpstream("bridge", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}}), l}, c.routes...)...)
		warned := slices.IndexFunc(warnings, func(w invalid.Warning) bool { return w.Code == warnNoEffect })
		if c.want == "" && warned >= 0 || c.want != "" && (warned < 0 || !strings.Contains(warnings[warned].Message, c.want)) {
			t.Errorf("%s: %v", name, warnings)
		}
	}
}
