package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

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

	sh := serveFake(t, fakeAdmin{status: fakeStatus{upstreams: ups}})
	sh.run(t.Context(), "status").want(t, exitOK, "NOT REFUSED   ENDPOINT   REASON          COUNT\nu             a:1        NAME_MISMATCH   9\n",
		"UPSTREAM   OPEN   MADE WITH CLIENT CERTIFICATE\nu          4      aa11\nu          1      none\n")
	sh.run(t.Context(), "status", "-o", "json").want(t, exitOK, `"fullHandshakes"`, `"connectionsByCertificate"`)
}

func TestWarmConnectionsAndPausesAreShown(t *testing.T) {
	ups := text(t, &adminv1.ListUpstreamStatusesResponse{}, `upstreams { name: "u"
		endpoints { address: "a:1" warm { size: 8 ready: 7 used: 100 missed: 2 expired: 3 closed: 4 } } endpoints { address: "b:1" draining: true } }`)
	check(t, warmTable(ups.GetUpstreams()), "u|a:1|7 of 8|100|2|3|4")
	st := text(t, &adminv1.GetStatusResponse{}, `descriptors { limit: 100 clients: 20 upstreams: 19 paused_listeners: 2 pauses: 5 }`)
	sh := serveFake(t, fakeAdmin{status: fakeStatus{status: st, upstreams: ups}})
	sh.run(t.Context(), "status").want(t, exitOK, "UPSTREAM   ENDPOINT   WARM     USED   MISSED   EXPIRED   CLOSED\nu          a:1        7 of 8   100    2        3         4\n",
		"NOT ACCEPTING 2 listeners: clients use 20 of 100 file descriptors and upstreams 19")
}

func TestDNSResultsAreShownForEndpointsFromDNS(t *testing.T) {
	ups := text(t, &adminv1.ListUpstreamStatusesResponse{}, `
		upstreams { name: "u" dns { resolve_time { seconds: 990 } next_resolve_time { seconds: 1030 } } endpoints { address: "a:1" } endpoints { address: "b:1" } endpoints { address: "c:1" draining: true } }
		upstreams { name: "gone" reason: REASON_DNS_FAILURE message: "no such host" dns { next_resolve_time { seconds: 1001 } error: "no such host" } }
		upstreams { name: "fixed" endpoints { address: "a:1" } }`)
	check(t, dnsTable(ups.GetUpstreams(), time.Unix(1000, 0)), "u|2 endpoints|10s ago|in 30s|", "gone|0 endpoints|never|in 1s|no such host")
	sh := serveFake(t, fakeAdmin{status: fakeStatus{upstreams: ups}})
	sh.run(t.Context(), "status").want(t, exitOK, "UPSTREAM   BY DNS", "DNS_FAILURE: no such host")
}

func TestCertificatesInUseAreShownByDaysLeft(t *testing.T) {
	list := text(t, &adminv1.ListCertificatesInUseResponse{}, `
		certificates { use: CERTIFICATE_USE_UPSTREAM name: "u" endpoint: "a:1" days_left: -2 used_by { kind: KIND_UPSTREAM name: "u" }
			info { sans: "DNS:a" sans: "DNS:b" not_after { seconds: 1893456000 } sha256_fingerprint: "00112233445566778899" findings: CERTIFICATE_FINDING_EXPIRED findings: CERTIFICATE_FINDING_WEAK_KEY } }
		certificates { use: CERTIFICATE_USE_OWN name: "client" days_left: 6 info { subject: "CN=c" } used_by { kind: KIND_LISTENER name: "web" } used_by { kind: KIND_UPSTREAM name: "u" } }
		certificates { use: CERTIFICATE_USE_CRL name: "corp" days_left: 40 info { issuer: "CN=ca" } }`)
	sh := serveFake(t, fakeAdmin{status: fakeStatus{certificates: list}})
	sh.run(t.Context(), "status", "--certificates").want(t, exitOK,
		"DAYS LEFT   UNTIL        USE        NAME     SUBJECT       USED BY                    SHA-256            FINDINGS\n"+
			"expired     2030-01-01   upstream   u a:1    DNS:a,DNS:b   upstream u                 0011223344556677   EXPIRED,WEAK_KEY\n"+
			"6           -            own        client   CN=c          listener web, upstream u   -                  -\n"+
			"40          -            crl        corp     CN=ca         -                          -                  -\n")
	var answer struct {
		Certificates []struct{ DaysLeft int }
	}
	r := sh.run(t.Context(), "status", "--certificates", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &answer); err != nil || len(answer.Certificates) != 3 || answer.Certificates[0].DaysLeft != -2 {
		t.Errorf("%v in %s", err, r.out)
	}

	none := serveFake(t, fakeAdmin{status: fakeStatus{certificates: &adminv1.ListCertificatesInUseResponse{}}})
	none.run(t.Context(), "status", "--certificates").want(t, exitOK, "No certificates in use.")
}

func TestColorsDoNotMoveColumns(t *testing.T) {
	tb := &table{header: []string{"HEALTH", "DAYS LEFT", "REASON"}}
	tb.add("up", "expired", "EXPIRED")
	tb.add("1 up, 1 down", "6", "")
	tb.add("not tried", "29", "\x1b[2J")
	tb.add("ümlaut", "300", "x")
	var plain, colored bytes.Buffer
	if err := tb.write(&plain, false); err != nil {
		t.Fatal(err)
	}
	if err := tb.write(&colored, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\x1b[32mup\x1b[0m   ", "\x1b[31m1 up, 1 down\x1b[0m   ", "\x1b[31mexpired\x1b[0m", "\x1b[33m6\x1b[0m ", "\x1b[33m29\x1b[0m ", "   300         ", "\uFFFD[2J"} {
		if !strings.Contains(colored.String(), want) {
			t.Errorf("no %q in %q", want, colored.String())
		}
	}
	stripped := colored.String()
	for _, code := range []string{"32", "31", "33", "0"} {
		stripped = strings.ReplaceAll(stripped, "\x1b["+code+"m", "")
	}
	if stripped != plain.String() {
		t.Errorf("colored\n%s\nplain\n%s", stripped, plain.String())
	}
	if !strings.Contains(plain.String(), "\nümlaut         300         x\n") {
		t.Errorf("got\n%s", plain.String())
	}
}

func TestResultsOfHealthChecksAndEjectionsAreShown(t *testing.T) {
	ups := text(t, &adminv1.ListUpstreamStatusesResponse{}, `
		upstreams { name: "u"
			endpoints { address: "a:1" health: ENDPOINT_HEALTH_UP available: true check { healthy: true checked: true check_time { seconds: 998 } duration { nanos: 1234567 } checks: 9 failures: 1 } }
			endpoints { address: "b:1" health: ENDPOINT_HEALTH_DOWN unavailable_reason: "fails its health check: CHECK_FAILED: it answered 503"
				check { checked: true check_time { seconds: 1001 } reason: REASON_CHECK_FAILED checks: 3 failures: 3 } }
			endpoints { address: "c:1" health: ENDPOINT_HEALTH_UNKNOWN unavailable_reason: "its first health check has not been answered yet" check { } } }
		upstreams { name: "v"
			endpoints { address: "d:1" health: ENDPOINT_HEALTH_UP ejection_end_time { seconds: 1030 } ejections: 1
				unavailable_reason: "ejected until 1970-01-01T00:17:10Z: 5 failures in a row" last_failure { reason: REASON_PEER_CLOSED message: "EOF" } }
			endpoints { address: "e:1" health: ENDPOINT_HEALTH_UP draining: true unavailable_reason: "draining" } }`)
	now := time.Unix(1000, 0)
	check(t, checkTable(ups.GetUpstreams(), now), "u|a:1|well|2s ago|1.2ms|9|1", "u|b:1|not well, CHECK_FAILED|0s ago|0s|3|3", "u|c:1|waits for its first|||0|0")
	endpoints := rows(endpointTable(ups.GetUpstreams(), now))
	for i, want := range []string{
		"u|a:1|up|", "u|b:1|down (check: CHECK_FAILED)|", "u|c:1|not checked yet|", "v|d:1|up, ejected for 30s|", "v|e:1|up, draining|",
	} {
		if !strings.HasPrefix(endpoints[i], want) {
			t.Errorf("%s does not begin with %s", endpoints[i], want)
		}
	}
	for i, want := range []string{"|", "it answered 503", "has not been answered yet", "5 failures in a row", "|"} {
		if !strings.HasSuffix(endpoints[i], want) {
			t.Errorf("%s does not end with %s", endpoints[i], want)
		}
	}
}
