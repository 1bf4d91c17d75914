package view

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Text from a peer never moves the cursor or ends a line.
func FuzzPeerTextIsEscapedForTheTerminal(f *testing.F) {
	f.Add("CN=a", "CN=b", "\x1b]0;title\x07", "x\r\ny\u202e", int64(0), int32(11))
	f.Add("", "", "CN=a", "\u2028", int64(1<<40), int32(8))
	f.Add("CN=a", "CN=a", "", "\x9b31m", int64(-1<<40), int32(14))
	f.Fuzz(func(t *testing.T, subject, issuer, said, name string, until int64, reason int32) {
		chain := []*adminv1.CertificateInfo{
			{Subject: subject, Issuer: issuer, Sans: []string{name, said}, KeyType: said, Warnings: []string{said, name}, NotAfter: timestamppb.New(time.Unix(until, 0))},
			{Subject: issuer, Issuer: name, NotBefore: timestamppb.New(time.Unix(until, 0))},
			{Subject: name, Issuer: subject, Serial: said},
		}
		result := &adminv1.ProbeResult{
			Endpoint: name, Outcome: adminv1.ProbeOutcome_PROBE_OUTCOME_FAILED, Reason: adminv1.Reason(reason), Explanation: said, Suggestion: &adminv1.Suggestion{Field: name, Value: issuer, Text: said},
			Chain: chain, CipherSuite: said, Group: name, Alpn: said, AcceptableCas: []string{said, subject}, ServerName: name, VerifyName: said,
			RemoteAddress: said, Version: adminv1.TlsVersion_TLS_VERSION_1_3, Attempts: []*adminv1.ProbeAttempt{{Change: said}},
		}
		var out bytes.Buffer
		if err := WriteProbe(&out, false, []*adminv1.ProbeResult{result}, today); err != nil {
			t.Fatal(err)
		}
		answer := &adminv1.ExplainRouteResponse{Route: name, Why: said, Action: adminv1.ExplainedAction_EXPLAINED_ACTION_REFUSE, Host: said, Path: name, Upstreams: []*adminv1.ExplainedUpstream{{
			Name: name, Certificate: said, Sha256Fingerprint: name, TrustBundles: []string{said}, Reason: adminv1.Reason(reason), Message: said,
			Endpoints: []*adminv1.ExplainedEndpoint{{Address: said, ServerName: name, VerifyNames: []string{said}, Tls: true}}}}}
		if err := WriteExplanation(&out, false, &adminv1.ExplainRouteRequest{}, answer); err != nil {
			t.Fatal(err)
		}
		event := EventLine(false, &adminv1.Event{Name: name, Endpoint: said, Message: issuer, Reason: adminv1.Reason(reason)})
		if strings.Contains(event, "\n") {
			t.Errorf("an event of several lines: %q", event)
		}
		for _, r := range out.String() + event {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Fatalf("%q in\n%q", r, out.String())
			}
		}
	})
}
