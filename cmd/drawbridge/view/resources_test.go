package view

import (
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestListenersAreShownWithTheirState(t *testing.T) {
	listeners := []*adminv1.Resource{
		text(t, &adminv1.Resource{}, `listener { name: "moved" address: "127.0.0.1:0" protocol: PROTOCOL_TCP tls { client_auth: CLIENT_AUTH_OPTIONAL } }`),
		text(t, &adminv1.Resource{}, `listener { name: "down" address: ":80" protocol: PROTOCOL_HTTP tls {} upstream: "u" }`),
		text(t, &adminv1.Resource{}, `listener { name: "new" address: ":81" protocol: 99 }`),
	}
	check(t, ListenerTable(listeners, text(t, &adminv1.GetStatusResponse{}, `
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
	check(t, UpstreamTable(ups, text(t, &adminv1.ListUpstreamStatusesResponse{}, `
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
	check(t, RouteTable(routes), "a|l||~ ^/x$||forward u", "b|||||redirect 302", "c|||||respond 204", "d|||||respond 200", "e|||||")
}
