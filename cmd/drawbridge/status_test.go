package main

import (
	"encoding/json"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestCertificatesInUseAreShownByDaysLeft(t *testing.T) {
	list := text(t, &adminv1.ListCertificatesInUseResponse{}, `
		certificates { use: CERTIFICATE_USE_UPSTREAM name: "u" endpoint: "a:1" days_left: -2 used_by { kind: KIND_UPSTREAM name: "u" }
			info { sans: "DNS:a" sans: "DNS:b" not_after { seconds: 1893456000 } sha256_fingerprint: "00112233445566778899" findings: CERTIFICATE_FINDING_EXPIRED findings: CERTIFICATE_FINDING_WEAK_KEY } }
		certificates { use: CERTIFICATE_USE_OWN name: "client" days_left: 6 info { subject: "CN=c" } used_by { kind: KIND_LISTENER name: "web" } used_by { kind: KIND_UPSTREAM name: "u" } }
		certificates { use: CERTIFICATE_USE_CRL name: "corp" days_left: 40 info { issuer: "CN=ca" } }`)
	sh := serveFake(t, fakeAdmin{status: fakeStatus{certificates: list}})
	sh.run(t.Context(), "status", "--certificates").want(t, exit.OK,
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
	none.run(t.Context(), "status", "--certificates").want(t, exit.OK, "No certificates in use.")
}

func TestStatusInJSONHasEveryField(t *testing.T) {
	ups := text(t, &adminv1.ListUpstreamStatusesResponse{}, `upstreams { name: "u"
		endpoints { address: "a:1" full_handshakes { reason: FULL_HANDSHAKE_REASON_NO_TICKET count: 3 } }
		connections_by_certificate { sha256_fingerprint: "aa11" connections: 4 } }`)
	sh := serveFake(t, fakeAdmin{status: fakeStatus{upstreams: ups}})
	sh.run(t.Context(), "status").want(t, exit.OK, "u          a:1        ", "NO_TICKET")
	sh.run(t.Context(), "status", "-o", "json").want(t, exit.OK, `"fullHandshakes"`, `"connectionsByCertificate"`)
}

func TestReadinessIsAnExitCode(t *testing.T) {
	for _, tt := range []struct {
		ready bool
		code  int
		text  string
	}{{true, exit.OK, "ready\n"}, {false, exit.Unavailable, "Error: the gateway is not ready\n"}} {
		sh := serveFake(t, fakeAdmin{status: fakeStatus{status: &adminv1.GetStatusResponse{Ready: tt.ready}}})
		if r := sh.run(t.Context(), "status", "--ready"); r.code != tt.code || r.out+r.err != tt.text {
			t.Errorf("ready %v: exit code %d: %s%s", tt.ready, r.code, r.out, r.err)
		}
		sh.run(t.Context(), "status", "--ready", "--certificates").want(t, exit.Usage, "--ready cannot be combined")
		sh.run(t.Context(), "status", "--ready", "-o", "json").want(t, exit.Usage, "--ready cannot be combined")
	}
	gone := shell{env: map[string]string{"DRAWBRIDGE_ADMIN": "unix:" + t.TempDir() + "/none.sock"}}
	gone.run(t.Context(), "status", "--ready").want(t, exit.Unavailable, "none.sock")
}
