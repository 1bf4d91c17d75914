package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func text[M proto.Message](t *testing.T, m M, in string) M {
	t.Helper()
	if err := prototext.Unmarshal([]byte(in), m); err != nil {
		t.Fatal(err)
	}
	return m
}

// rows returns a table's cells, "|" between.
func rows(tb *table) []string {
	var out []string
	for _, r := range tb.rows {
		out = append(out, strings.Join(r, "|"))
	}
	return out
}

func check(t *testing.T, tb *table, want ...string) {
	t.Helper()
	if got := rows(tb); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestListenersAreShownWithTheirState(t *testing.T) {
	listeners := []*adminv1.Resource{
		text(t, &adminv1.Resource{}, `listener { name: "moved" address: "127.0.0.1:0" protocol: PROTOCOL_TCP tls { client_auth: CLIENT_AUTH_OPTIONAL } }`),
		text(t, &adminv1.Resource{}, `listener { name: "down" address: ":80" protocol: PROTOCOL_HTTP tls {} upstream: "u" }`),
		text(t, &adminv1.Resource{}, `listener { name: "new" address: ":81" protocol: 99 }`),
	}
	check(t, listenerTable(listeners, text(t, &adminv1.GetStatusResponse{}, `
		listeners { name: "moved" state: LISTENER_STATE_DRAINING bound_address: "127.0.0.1:1" connections: 5 }
		listeners { name: "moved" state: LISTENER_STATE_UP bound_address: "127.0.0.1:2" connections: 3 }
		listeners { name: "down" state: LISTENER_STATE_DOWN address: ":80" reason: "address in use" }
	`).GetListeners()),
		"moved|TCP|127.0.0.1:2|tls, client certificate optional||up|3",
		"down|HTTP|:80|tls|u|down: address in use|0",
		"new|99|:81|plaintext||unknown|0")
}

func TestUpstreamsAreShownWithTheirHealth(t *testing.T) {
	var ups []*adminv1.Resource
	for _, in := range []string{
		`name: "mixed" endpoints { address: "a:1" } endpoints { address: "b:1" } endpoints { address: "c:1" } endpoints { address: "d:1" } tls { trust_bundles: "x" trust_bundles: "y" }`,
		`name: "report" tls { verification: VERIFICATION_REPORT_ONLY }`,
		`name: "skip" tls { verification: VERIFICATION_INSECURE_SKIP trust_bundles: "x" }`,
		`name: "broken"`,
		`name: "named" dns { hostname: "h" port: 1 }`,
		`name: "service" dns { srv: "_a._tcp.b" }`,
	} {
		ups = append(ups, &adminv1.Resource{Kind: &adminv1.Resource_Upstream{Upstream: text(t, &adminv1.Upstream{}, in)}})
	}
	check(t, upstreamTable(ups, text(t, &adminv1.ListUpstreamStatusesResponse{}, `
		upstreams { name: "mixed" endpoints { health: ENDPOINT_HEALTH_UP } endpoints { health: ENDPOINT_HEALTH_DOWN last_failure { reason: REASON_UNKNOWN_CA } } endpoints { health: ENDPOINT_HEALTH_UNKNOWN } }
		upstreams { name: "broken" reason: REASON_LOCAL_CONFIG message: "trust bundle gone" }
	`).GetUpstreams()),
		"mixed|a:1,b:1,c:1 +1|tls||x,y|1 up, 1 down (UNKNOWN_CA), 1 not tried",
		"report||tls, verification reported only||system|",
		"skip||tls, NOT verified|||",
		"broken||tls||system|down: trust bundle gone",
		"named|by DNS: h:1|tls||system|",
		"service|by DNS: _a._tcp.b|tls||system|")
}

func TestRoutesAreShownWithTheirAction(t *testing.T) {
	var routes []*adminv1.Resource
	for _, in := range []string{
		`name: "a" listeners: "l" match { path { regex: "^/x$" } } forward { upstreams { name: "u" } }`,
		`name: "b" redirect {}`,
		`name: "c" respond { code: 204 }`,
		`name: "d" respond {}`,
		`name: "e"`,
	} {
		routes = append(routes, &adminv1.Resource{Kind: &adminv1.Resource_Route{Route: text(t, &adminv1.Route{}, in)}})
	}
	check(t, routeTable(routes), "a|l||~ ^/x$||forward u", "b|||||redirect 302", "c|||||respond 204", "d|||||respond 200", "e|||||")
}

func TestDaysLeftAreCountedToTheFirstExpiry(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	info := func(subject string, left time.Duration) *adminv1.CertificateInfo {
		return &adminv1.CertificateInfo{Subject: subject, NotAfter: timestamppb.New(now.Add(left)), Sha256Fingerprint: "AB:CD"}
	}
	bundle := &adminv1.TrustBundle{Name: "b", Source: &adminv1.TrustBundle_System{}, Info: &adminv1.TrustBundleInfo{
		Count: 2, Certificates: []*adminv1.CertificateInfo{info("CN=a", 100*24*time.Hour), info("CN=b", 36*time.Hour)}}}
	check(t, trustBundleTable([]*adminv1.Resource{store.Wrap(bundle)}, now), "b|system|2|CN=a,CN=b|1|")
	bundle.Info.Crls = []*adminv1.CrlInfo{{NextUpdate: timestamppb.New(now.Add(50 * time.Hour))}, {NextUpdate: timestamppb.New(now.Add(25 * time.Hour))}}
	check(t, trustBundleTable([]*adminv1.Resource{store.Wrap(bundle)}, now), "b|system|2|CN=a,CN=b|1|2, next update in 1 day")
	bundle.Info.Crls[0].NextUpdate = timestamppb.New(now.Add(-time.Second))
	check(t, trustBundleTable([]*adminv1.Resource{store.Wrap(bundle)}, now), "b|system|2|CN=a,CN=b|1|2, OUTDATED")
	expired := &adminv1.Certificate{Name: "c", Info: info("CN=c", -time.Second)}
	expired.Info.Findings = []adminv1.CertificateFinding{adminv1.CertificateFinding_CERTIFICATE_FINDING_EXPIRED, adminv1.CertificateFinding_CERTIFICATE_FINDING_NO_SAN}
	check(t, certificateTable([]*adminv1.Resource{store.Wrap(expired), store.Wrap(&adminv1.Certificate{Name: "d", Source: &adminv1.Certificate_Pkcs12{}})}, now),
		"c|CN=c||expired||pem|abcd|EXPIRED,NO_SAN", "d|||||pkcs12||")
}

func TestStatusShowsWhatIsDownAndWhy(t *testing.T) {
	st := text(t, &adminv1.GetStatusResponse{}, `version: "v1" revision: 7 uptime { seconds: 3725 nanos: 5 } counts { listeners: 1 }
		problems { kind: KIND_TRUST_BUNDLE name: "corp" reason: "cannot read\nfile" }
		warnings { field: "upstream.tls" message: "not verified" }`)
	ups := text(t, &adminv1.ListUpstreamStatusesResponse{}, `
		upstreams { name: "u" endpoints { address: "a:1" health: ENDPOINT_HEALTH_DOWN draining: true
			failures { reason: REASON_EXPIRED count: 2 } failures { reason: REASON_OTHER count: 3 } certificate { subject: "CN=x" not_after { seconds: 1 } }
			last_failure { reason: REASON_EXPIRED message: "it \x1b[31mexpired" } } }
		upstreams { name: "gone" reason: REASON_LOCAL_CONFIG message: "no certificate" }
		upstreams { name: "idle" reason: REASON_LOCAL_CONFIG message: "no trust" endpoints { address: "b:1" health: ENDPOINT_HEALTH_UNKNOWN } }`).GetUpstreams()
	ups[0].Endpoints[0].LastFailure.FailureTime = timestamppb.New(time.Now().Add(time.Hour)) // a clock that is ahead
	var out bytes.Buffer
	if err := writeStatus(&out, false, st, ups); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Drawbridge v1, revision 7, NOT READY, up 1h2m5s\n", "1 listener, 0 routes,",
		"trust bundle   corp   cannot read file\n", "Warning: upstream.tls: not verified\n",
		"down, draining", "CN=x, expired", "EXPIRED 0s ago (5 in all): it \uFFFD[31mexpired", "no certificate\n", "no trust\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestWarningsNameTheFile(t *testing.T) {
	_, sh := serve(t)
	file := writeFile(t, t.TempDir(), "u.yaml", "kind: Upstream\nname: u\nendpoints: [{address: \"a:1\"}]\ntls:\n  verification: INSECURE_SKIP\n")
	r := sh.run(t.Context(), "apply", "-f", file, "-o", "yaml")
	r.want(t, exitOK, "Warning: "+file+":5: document 1 (Upstream u): tls.verification: ")
	if !strings.HasPrefix(r.out, "revision: \"1\"\n") {
		t.Errorf("the answer is not YAML alone:\n%s", r.out)
	}
}
