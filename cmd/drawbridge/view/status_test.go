package view

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const rotating = `upstreams { name: "u"
	endpoints { address: "a:1" health: ENDPOINT_HEALTH_UP handshakes_full: 5 handshakes_resumed: 7
		full_handshakes { reason: FULL_HANDSHAKE_REASON_NO_TICKET count: 3 } full_handshakes { reason: FULL_HANDSHAKE_REASON_REFUSED count: 2 }
		reported { reason: REASON_NAME_MISMATCH count: 9 } }
	connections_by_certificate { sha256_fingerprint: "aa11" connections: 4 } connections_by_certificate { connections: 1 } }
upstreams { name: "settled" endpoints { address: "b:1" handshakes_full: 2 full_handshakes { reason: FULL_HANDSHAKE_REASON_FLUSHED count: 2 } } endpoints { address: "c:1" } connections_by_certificate { sha256_fingerprint: "aa11" connections: 2 } }`

func TestHandshakesIdentitiesAndReportedFailuresAreShown(t *testing.T) {
	ups := text(t, &adminv1.ListUpstreamStatusesResponse{}, rotating)
	rows := rows(endpointTable(ups.GetUpstreams(), time.Now()))
	if want := "|5 full (3 NO_TICKET, 2 REFUSED), 7 resumed|"; !strings.Contains(rows[0], want) {
		t.Errorf("no %s in %s", want, rows[0])
	}
	if want := "|2 full (FLUSHED), 0 resumed|"; !strings.Contains(rows[1], want) {
		t.Errorf("no %s in %s", want, rows[1])
	}
	if want := "|0 full, 0 resumed|"; !strings.Contains(rows[2], want) {
		t.Errorf("no %s in %s", want, rows[2])
	}
	check(t, reportedTable(ups.GetUpstreams()), "u|a:1|NAME_MISMATCH|9")
	check(t, identityTable(ups.GetUpstreams()), "u|4|aa11", "u|1|none")

	contains(t, shown(t, &adminv1.GetStatusResponse{}, ups.GetUpstreams()), "NOT REFUSED   ENDPOINT   REASON          COUNT\nu             a:1        NAME_MISMATCH   9\n",
		"UPSTREAM   OPEN   MADE WITH CLIENT CERTIFICATE\nu          4      aa11\nu          1      none\n")
}

func TestWarmConnectionsAndPausesAreShown(t *testing.T) {
	ups := text(t, &adminv1.ListUpstreamStatusesResponse{}, `upstreams { name: "u"
		endpoints { address: "a:1" warm { size: 8 ready: 7 used: 100 missed: 2 expired: 3 closed: 4 } } endpoints { address: "b:1" draining: true } }`)
	check(t, warmTable(ups.GetUpstreams()), "u|a:1|7 of 8|100|2|3|4")
	st := text(t, &adminv1.GetStatusResponse{}, `descriptors { limit: 100 clients: 20 upstreams: 19 paused_listeners: 2 pauses: 5 }`)
	contains(t, shown(t, st, ups.GetUpstreams()), "UPSTREAM   ENDPOINT   WARM     USED   MISSED   EXPIRED   CLOSED\nu          a:1        7 of 8   100    2        3         4\n",
		"NOT ACCEPTING 2 listeners: clients use 20 of 100 file descriptors and upstreams 19")
}

func TestDNSResultsAreShownForEndpointsFromDNS(t *testing.T) {
	ups := text(t, &adminv1.ListUpstreamStatusesResponse{}, `
		upstreams { name: "u" dns { resolve_time { seconds: 990 } next_resolve_time { seconds: 1030 } } endpoints { address: "a:1" } endpoints { address: "b:1" } endpoints { address: "c:1" draining: true } }
		upstreams { name: "gone" reason: REASON_DNS_FAILURE message: "no such host" dns { next_resolve_time { seconds: 1001 } error: "no such host" } }
		upstreams { name: "fixed" endpoints { address: "a:1" } }`)
	check(t, dnsTable(ups.GetUpstreams(), time.Unix(1000, 0)), "u|2 endpoints|10s ago|in 30s|", "gone|0 endpoints|never|in 1s|no such host")
	contains(t, shown(t, &adminv1.GetStatusResponse{}, ups.GetUpstreams()), "UPSTREAM   BY DNS", "DNS_FAILURE: no such host")
}

func TestResultsOfHealthChecksAndEjectionsAreShown(t *testing.T) {
	ups := text(t, &adminv1.ListUpstreamStatusesResponse{}, `
		upstreams { name: "u"
			endpoints { address: "a:1" health: ENDPOINT_HEALTH_UP available: true check { healthy: true checked: true check_time { seconds: 998 } duration { nanos: 1234567 } checks: 9 failures: 1 } }
			endpoints { address: "b:1" health: ENDPOINT_HEALTH_DOWN unavailable_reason: "fails its health check: CHECK_FAILED: the endpoint answered 503"
				check { checked: true check_time { seconds: 1001 } reason: REASON_CHECK_FAILED checks: 3 failures: 3 } }
			endpoints { address: "c:1" health: ENDPOINT_HEALTH_UNKNOWN unavailable_reason: "its first health check has not been answered yet" check { } } }
		upstreams { name: "v"
			endpoints { address: "d:1" health: ENDPOINT_HEALTH_UP ejection_end_time { seconds: 1030 } ejections: 1
				unavailable_reason: "ejected until 1970-01-01T00:17:10Z: 5 failures in a row" last_failure { reason: REASON_PEER_CLOSED message: "EOF" } }
			endpoints { address: "e:1" health: ENDPOINT_HEALTH_UP draining: true unavailable_reason: "draining" } }`)
	now := time.Unix(1000, 0)
	check(t, checkTable(ups.GetUpstreams(), now), "u|a:1|healthy|2s ago|1.2ms|9|1", "u|b:1|unhealthy, CHECK_FAILED|0s ago|0s|3|3", "u|c:1|not checked yet|||0|0")
	endpoints := rows(endpointTable(ups.GetUpstreams(), now))
	for i, want := range []string{
		"u|a:1|up|", "u|b:1|down (check: CHECK_FAILED)|", "u|c:1|not checked yet|", "v|d:1|up, ejected for 30s|", "v|e:1|up, draining|",
	} {
		if !strings.HasPrefix(endpoints[i], want) {
			t.Errorf("%s does not begin with %s", endpoints[i], want)
		}
	}
	for i, want := range []string{"|", "the endpoint answered 503", "has not been answered yet", "5 failures in a row", "|"} {
		if !strings.HasSuffix(endpoints[i], want) {
			t.Errorf("%s does not end with %s", endpoints[i], want)
		}
	}
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
	ups[0].Endpoints[0].LastFailure.FailureTime = timestamppb.New(time.Now().Add(time.Hour)) // the gateway's clock is ahead
	contains(t, shown(t, st, ups),
		"Drawbridge v1, revision 7, NOT READY, up 1h2m5s\n", "1 listener, 0 routes,",
		"trust bundle   corp   cannot read file\n", "Warning: upstream.tls: not verified\n",
		"down, draining", "CN=x, expired", "EXPIRED 0s ago (5 in all): it \uFFFD[31mexpired", "no certificate\n", "no trust\n")
}
