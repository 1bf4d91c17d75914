package view

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	leaf   = `chain { subject: "CN=leaf" issuer: "CN=mid" }`
	middle = `chain { subject: "CN=mid" issuer: "CN=root" }`
	root   = `chain { subject: "CN=root" issuer: "CN=root" }`
)

func TestFaultsAreMarkedAtTheirCertificate(t *testing.T) {
	expired := strings.Replace(middle, "issuer", "not_after { seconds: 1893283200 } issuer", 1)
	early := strings.Replace(root, "issuer", "not_before { seconds: 1893542400 } issuer", 1)
	for _, tt := range []struct {
		reason, chain, explanation, want string
	}{
		{"NAME_MISMATCH", leaf + middle, "", "CN=leaf: is not for pay.example"},
		{"UNKNOWN_CA", leaf + middle, "", "CN=root (not presented): not presented, and not among the trusted CAs"},
		{"UNKNOWN_CA", leaf + root, "", "CN=mid (not presented): not presented, and not among the trusted CAs"},
		{"UNKNOWN_CA", leaf + middle + root, "", "CN=root: is not trusted"},
		{"DEPTH_EXCEEDED", leaf + middle + root, "", "CN=mid: more intermediates than tls.verify_depth allows"},
		{"DEPTH_EXCEEDED", leaf, "", ""},
		{"WRONG_KEY_USAGE", leaf, "", "CN=leaf: may not be used by a server"},
		{"REVOKED", leaf + middle, `the certificate "CN=mid", serial 0c2d, was revoked by "CN=root"`, "CN=mid: is revoked"},
		{"REVOKED", leaf + middle, "", "CN=leaf: is revoked"},
		{"REVOKED", leaf + middle, `"CN=middle"`, "CN=leaf: is revoked"},
		{"CRL_EXPIRED", leaf + middle, `whether "CN=mid" is revoked is unknown: the list of "CN=root" ended`, "CN=mid: no revocation list of its issuer is current"},
		{"PIN_MISMATCH", leaf, "", "CN=leaf: neither its key nor an issuer's key is pinned"},
		{"BAD_CERTIFICATE", leaf, "", "CN=leaf: is malformed, or its signature is wrong"},
		{"EXPIRED", leaf + expired + root, "", "CN=mid: expired 2 days ago"},
		{"NAME_MISMATCH", leaf + expired, "", "CN=leaf: is not for pay.example|CN=mid: expired 2 days ago"},
		{"NOT_YET_VALID", leaf + middle + early, "", "CN=root: is not valid before 2030-01-02T00:00:00Z"},
		{"EXPIRED", leaf, "", "CN=leaf: EXPIRED by the gateway's clock"},
		{"CLIENT_CERTIFICATE_REQUIRED", leaf + middle, "", ""},
		{"NAME_MISMATCH", "", "", ""},
	} {
		v := viewChain(text(t, &adminv1.ProbeResult{}, fmt.Sprintf("verify_name: %q explanation: %q reason: REASON_%s %s", "pay.example", tt.explanation, tt.reason, tt.chain)), today)
		var got []string
		for i, c := range v.certs {
			for _, fault := range v.faults[i] {
				got = append(got, c.GetSubject()+": "+fault)
			}
		}
		for _, fault := range v.faults[missing] {
			got = append(got, v.issuer+" (not presented): "+fault)
		}
		if strings.Join(got, "|") != tt.want {
			t.Errorf("%s of %s: got %s, want %s", tt.reason, tt.chain, strings.Join(got, "|"), tt.want)
		}
	}
}

func TestChainIsOrdered(t *testing.T) {
	for _, tt := range []struct{ name, chain, want string }{
		{"in order", leaf + middle + root, "CN=root\n└─ CN=mid\n   └─ CN=leaf\n"},
		{"out of order", leaf + root + middle, "CN=root\n└─ CN=mid\n   └─ CN=leaf\n"},
		{"an intermediate is missing", leaf + root, "CN=mid  (not presented)\n└─ CN=leaf\nalso presented: CN=root\n"},
		{"a self-signed leaf", root, "CN=root\n"},
		{"the same certificate twice", leaf + leaf + middle, "CN=root  (not presented)\n└─ CN=mid\n   └─ CN=leaf\nalso presented: CN=leaf\n"},
		{"a ring", leaf + `chain { subject: "CN=mid" issuer: "CN=leaf" }`, "CN=leaf  (not presented)\n└─ CN=mid\n   └─ CN=leaf\n"},
		{"no subject", `chain { issuer: "CN=\033[2J\nroot" }`, "CN=\uFFFD[2J root  (not presented)\n└─ (no subject)\n"},
	} {
		var out bytes.Buffer
		viewChain(text(t, &adminv1.ProbeResult{}, tt.chain), today).write(&out, false, "")
		if out.String() != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, out.String(), tt.want)
		}
	}
}
