package snapshot

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/bridge/resolve"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestEndpointsAreFixedOrFromDNS(t *testing.T) {
	w := newTestbed(t)
	many := make([]string, 17)
	for i := range many {
		many[i] = "10.0.0.1"
	}
	ok := &adminv1.Dns{Hostname: "web.internal", Port: 443}
	for _, c := range []struct {
		name   string
		u      *adminv1.Upstream
		faults []string
	}{
		{"neither endpoints nor dns", &adminv1.Upstream{}, []string{"r0.endpoints"}},
		{"endpoints and dns", &adminv1.Upstream{Endpoints: []*adminv1.Endpoint{{Address: "10.0.0.1:443"}}, Dns: ok}, []string{"r0.dns"}},
		{"neither a hostname nor a service", &adminv1.Upstream{Dns: &adminv1.Dns{}}, []string{"r0.dns.hostname"}},
		{"a hostname and SRV records", &adminv1.Upstream{Dns: &adminv1.Dns{Hostname: "a.test", Port: 1, Srv: "_b._tcp.test"}}, []string{"r0.dns.srv"}},
		{"a hostname without a port", &adminv1.Upstream{Dns: &adminv1.Dns{Hostname: "a.test"}}, []string{"r0.dns.port"}},
		{"a port too high", &adminv1.Upstream{Dns: &adminv1.Dns{Hostname: "a.test", Port: 65536}}, []string{"r0.dns.port"}},
		{"a port with SRV", &adminv1.Upstream{Dns: &adminv1.Dns{Srv: "_b._tcp.test", Port: 1}}, []string{"r0.dns.port"}},
		{"an address", &adminv1.Upstream{Dns: &adminv1.Dns{Hostname: "10.0.0.1", Port: 1}}, []string{"r0.dns.hostname"}},
		{"a name with a port", &adminv1.Upstream{Dns: &adminv1.Dns{Hostname: "a.test:443", Port: 1}}, []string{"r0.dns.hostname"}},
		{"an invalid name", &adminv1.Upstream{Dns: &adminv1.Dns{Srv: "_b.._tcp"}}, []string{"r0.dns.srv"}},
		{"a refresh that is too frequent", &adminv1.Upstream{Dns: &adminv1.Dns{Hostname: "a.test", Port: 1, Refresh: durationpb.New(time.Millisecond)}}, []string{"r0.dns.refresh"}},
		{"a negative refresh", &adminv1.Upstream{Dns: &adminv1.Dns{Hostname: "a.test", Port: 1, Refresh: durationpb.New(-1)}}, []string{"r0.dns.refresh"}},
		{"servers", &adminv1.Upstream{Dns: &adminv1.Dns{Hostname: "a.test", Port: 1,
			Servers: []string{"10.0.0.1", "[::1]:5353", "::1", "[::1]", "10.0.0.1:0", "ns.test", "0.0.0.0", ":53"}}},
			[]string{"r0.dns.servers[4]", "r0.dns.servers[5]", "r0.dns.servers[6]", "r0.dns.servers[7]"}},
		{"too many servers", &adminv1.Upstream{Dns: &adminv1.Dns{Hostname: "a.test", Port: 1, Servers: many}}, []string{"r0.dns.servers"}},
		{"every fault", &adminv1.Upstream{Dns: &adminv1.Dns{Refresh: durationpb.New(1), Servers: []string{"x"}}, Pool: &adminv1.Pool{Warm: 5000}},
			[]string{"r0.pool.warm", "r0.dns.hostname", "r0.dns.servers[0]", "r0.dns.refresh"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.u.Name = "u"
			var got []string
			for _, f := range w.refused(c.u) {
				got = append(got, string(f.Field))
			}
			if !slices.Equal(got, c.faults) {
				t.Errorf("faults at %v, want %v", got, c.faults)
			}
		})
	}
	for _, d := range []*adminv1.Dns{ok, {Hostname: "web.internal.", Port: 1, Refresh: durationpb.New(time.Second), Servers: []string{"10.0.0.1", "[fd00::1]:5353"}}, {Srv: "_pay._tcp.example.com"}} {
		w.put(&adminv1.Upstream{Name: "u", Dns: d})
		w.put(&adminv1.Upstream{Name: "u", Dns: d, Transport: &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}})
	}
}

func TestDNSQueriesFollowTheResource(t *testing.T) {
	for _, c := range []struct {
		d    *adminv1.Dns
		want resolve.Query
	}{
		{&adminv1.Dns{Hostname: "web.internal", Port: 443}, resolve.Query{Host: "web.internal", Port: 443}},
		{&adminv1.Dns{Hostname: "web.internal.", Port: 443}, resolve.Query{Host: "web.internal", Rooted: true, Port: 443}},
		{&adminv1.Dns{Srv: "_pay._tcp.test."}, resolve.Query{SRV: "_pay._tcp.test"}},
	} {
		w := newTestbed(t)
		c.d.Servers = []string{"10.0.0.1", "[fd00::1]:5353"}
		w.put(&adminv1.Upstream{Name: "u", Dns: c.d})
		got := w.snap.upstreams.Get("u").name.Query()
		servers := got.Servers
		got.Servers = nil
		if !got.Equal(c.want) || len(servers) != 2 || servers[0].String() != "10.0.0.1:53" || servers[1].String() != "[fd00::1]:5353" {
			t.Errorf("%+v, %v", got, servers)
		}
	}
}

// Verification and SNI use the name unless the settings say otherwise, and never
// the address.
func TestAnEndpointByDNSIsVerifiedByItsName(t *testing.T) {
	for _, c := range []struct {
		tls         *adminv1.UpstreamTls
		sni, verify string
	}{
		{&adminv1.UpstreamTls{}, "web.internal", "web.internal"},
		{&adminv1.UpstreamTls{ServerName: "other.test"}, "other.test", "other.test"},
		{&adminv1.UpstreamTls{VerifyName: "other.test"}, "web.internal", "other.test"},
		{&adminv1.UpstreamTls{ServerNameSource: adminv1.ServerNameSource_SERVER_NAME_SOURCE_NONE}, "", "web.internal"},
		{&adminv1.UpstreamTls{ServerNameSource: adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST}, "asked.test", "asked.test"},
	} {
		w := newTestbed(t)
		w.put(&adminv1.Upstream{Name: "u", Dns: &adminv1.Dns{Hostname: "web.internal", Port: 443}, Transport: &adminv1.Upstream_Tls{Tls: c.tls}})
		u := w.snap.upstreams.Get("u")
		if u.live.FromHost() != (c.sni == "asked.test") {
			t.Errorf("%v: it takes the name from the host: %v", c.tls, u.live.FromHost())
		}
		o, err := u.endpoint(resolve.Address{At: netip.MustParseAddrPort("10.0.0.1:443"), Name: "web.internal"}, nil)
		if err != nil || o.Address != "10.0.0.1:443" || o.Authority != "web.internal:443" {
			t.Fatalf("%+v, %v", o, err)
		}
		if o.Stream == o.HTTP {
			t.Error("streams and HTTP share sessions")
		}
		sni, verify := namesOf(o.HTTP.Options(), "asked.test")
		if sni != c.sni || strings.Join(verify, ",") != c.verify {
			t.Errorf("%v: SNI %q, verified %v", c.tls, sni, verify)
		}
		another, _ := u.endpoint(resolve.Address{At: netip.MustParseAddrPort("10.0.0.2:443"), Name: "web.internal"}, nil)
		if another.HTTP == o.HTTP {
			t.Error("endpoints share sessions")
		}
	}
}

func TestRevisionsWithTheSameQueryShareTheAnswer(t *testing.T) {
	w := newTestbed(t)
	u := &adminv1.Upstream{Name: "u", Dns: &adminv1.Dns{Hostname: "web.internal", Port: 443}}
	w.put(u)
	first := w.snap.upstreams.Get("u")
	revise := func(change func(*adminv1.Upstream)) *liveUpstream {
		u = proto.Clone(u).(*adminv1.Upstream)
		change(u)
		w.put(u)
		return w.snap.upstreams.Get("u")
	}
	if again := revise(func(u *adminv1.Upstream) { u.Labels = map[string]string{"a": "b"} }); again.live != first.live || again.name != first.name || again.endpoint == nil {
		t.Error("the object of an unchanged upstream was replaced")
	}
	if other := revise(func(u *adminv1.Upstream) {
		u.Timeouts = &adminv1.UpstreamTimeouts{Connect: durationpb.New(time.Second)}
	}); other.live == first.live || other.name != first.name {
		t.Error("a revision with another timeout makes a new lookup")
	}
	if other := revise(func(u *adminv1.Upstream) { u.Dns.Refresh = durationpb.New(time.Minute) }); other.name != first.name {
		t.Error("a revision with another refresh makes a new lookup")
	}
	if other := revise(func(u *adminv1.Upstream) { u.Dns.Port = 8443 }); other.name == first.name {
		t.Error("a revision with another query uses the answer of the old one")
	}
	if up, _ := w.snap.Upstream("u"); up.Reason != adminv1.Reason_REASON_DNS_FAILURE || up.Message != "DNS has not answered yet" || up.Live.DNS() == nil {
		t.Errorf("reason %q", up.Reason)
	}
}
