package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file under testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// today is when the probes below were made.
var today = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// probes is one result for each way of failing that the view tells apart.
func probes(t *testing.T) *adminv1.ProbeUpstreamResponse {
	return text(t, &adminv1.ProbeUpstreamResponse{}, `
results { endpoint: "pay.example:443" outcome: PROBE_OUTCOME_OK remote_address: "10.0.0.1:443" server_name: "pay.example" verify_name: "pay.example"
	version: TLS_VERSION_1_3 cipher_suite: "TLS_AES_128_GCM_SHA256" group: "X25519MLKEM768" alpn: "h2" resumption_offered: true
	client_certificate_requested: true client_certificate_sent: true acceptable_cas: "CN=corp"
	timings { dns { nanos: 1234567 } connect { nanos: 345678 } handshake { seconds: 1 nanos: 234567890 } }
	chain { subject: "CN=pay.example" issuer: "CN=issuing" sans: "DNS:pay.example" key_type: "ECDSA P-256" not_after { seconds: 1893888000 } warnings: "expires in 5 days" }
	chain { subject: "CN=issuing" issuer: "CN=root" key_type: "RSA 2048" not_after { seconds: 1924992000 } } }
results { endpoint: "10.0.0.2:443" outcome: PROBE_OUTCOME_FAILED reason: REASON_NAME_MISMATCH remote_address: "10.0.0.2:443"
	explanation: "The certificate is for a.example, b.example; we verify pay.example." suggestion { field: "tls.verify_name" value: "a.example" text: "tls.verify_name: a.example" }
	server_name: "pay.example" verify_name: "pay.example"
	chain { subject: "CN=a" issuer: "CN=root" sans: "DNS:a.example" sans: "DNS:b.example" }
	chain { subject: "CN=other" issuer: "CN=elsewhere" }
	chain { subject: "CN=root" issuer: "CN=root" not_after { seconds: 1893000000 } }
	attempts { change: "without SNI" outcome: PROBE_OUTCOME_OK } attempts { change: "tls.max_version: 1.2" outcome: PROBE_OUTCOME_FAILED reason: REASON_PEER_CLOSED } }
results { endpoint: "unix:/run/x" outcome: PROBE_OUTCOME_FAILED reason: REASON_NOT_TLS explanation: "It answered \"\033[31mHTTP/1.1 400\"." }
results { endpoint: "10.0.0.3:80" outcome: PROBE_OUTCOME_OK timings { connect { nanos: 345678 } } }`)
}

func TestProbeIsPrintedForPeople(t *testing.T) {
	var plain, colored bytes.Buffer
	if err := writeProbe(&plain, false, probes(t).GetResults(), today); err != nil {
		t.Fatal(err)
	}
	golden(t, "probe.txt", plain.String())
	if strings.Contains(plain.String(), "\x1b") {
		t.Error("an escape sequence without a terminal")
	}
	if err := writeProbe(&colored, true, probes(t).GetResults(), today); err != nil {
		t.Fatal(err)
	}
	golden(t, "probe-color.txt", colored.String())
}

func TestProbeJSONHasWordsPerEndpoint(t *testing.T) {
	answer := probes(t)
	sh := serveFake(t, fakeAdmin{diagnostics: fakeDiagnostics{probe: func(r *adminv1.ProbeUpstreamRequest) (*adminv1.ProbeUpstreamResponse, error) {
		if r.GetName() != "pay" || r.GetEndpoint() != "e:1" || r.GetHost() != "h" {
			t.Errorf("asked for %v", r)
		}
		return answer, nil
	}}})
	r := sh.run(t.Context(), "probe", "pay", "--endpoint", "e:1", "--host", "h", "-o", "json")
	r.want(t, exitFailure, `"reason": "NAME_MISMATCH"`, `"explanation": "The certificate is for a.example, b.example; we verify pay.example."`,
		`"field": "tls.verify_name"`, `"value": "a.example"`, `"text": "tls.verify_name: a.example"`, `"outcome": "FAILED"`, `"version": "1_3"`, `"handshake": "1.234567890s"`, "Error: 2 of 4 endpoints failed\n")
	var results struct {
		Results []struct {
			Endpoint, Reason  *string
			Suggestion        *struct{ Field, Value, Text string }
			ResumptionOffered *bool
			AcceptableCas     *[]string
			Chain             []struct{ NotAfter string }
		}
	}
	if err := json.Unmarshal([]byte(r.out), &results); err != nil || len(results.Results) != 4 {
		t.Fatalf("%v in %s", err, r.out)
	}
	if got := results.Results[0]; got.Reason == nil || *got.Reason != "" || got.Suggestion != nil || got.ResumptionOffered == nil || !*got.ResumptionOffered || got.Chain[0].NotAfter != "2030-01-06T00:00:00Z" {
		t.Errorf("the first is %+v", got)
	}
	if got := results.Results[3]; got.Reason == nil || got.ResumptionOffered == nil || *got.ResumptionOffered || got.AcceptableCas == nil || len(*got.AcceptableCas) != 0 {
		t.Errorf("what is empty is left out of %+v", got)
	}
	sh.run(t.Context(), "probe", "pay", "--endpoint", "e:1", "--host", "h", "-o", "yaml").want(t, exitFailure, "results:\n  - endpoint: pay.example:443\n    outcome: OK\n    reason: \"\"\n")
	sh.run(t.Context(), "probe", "pay", "--endpoint", "e:1", "--host", "h").want(t, exitFailure, "10.0.0.2:443  FAILED  NAME_MISMATCH\n")
}

func TestProbeExitsWithZeroOnlyIfAllShookHands(t *testing.T) {
	var answer *adminv1.ProbeUpstreamResponse
	var refusal error
	sh := serveFake(t, fakeAdmin{diagnostics: fakeDiagnostics{probe: func(*adminv1.ProbeUpstreamRequest) (*adminv1.ProbeUpstreamResponse, error) {
		return answer, refusal
	}}})
	ok, failed := &adminv1.ProbeResult{Outcome: adminv1.ProbeOutcome_PROBE_OUTCOME_OK}, &adminv1.ProbeResult{Outcome: adminv1.ProbeOutcome_PROBE_OUTCOME_FAILED}
	for _, tt := range []struct {
		results []*adminv1.ProbeResult
		want    int
	}{
		{[]*adminv1.ProbeResult{ok, ok}, exitOK},
		{[]*adminv1.ProbeResult{ok, failed}, exitFailure},
		{[]*adminv1.ProbeResult{{}}, exitFailure},
		{nil, exitFailure},
	} {
		answer = &adminv1.ProbeUpstreamResponse{Results: tt.results}
		for _, output := range []string{"table", "json"} {
			sh.run(t.Context(), "probe", "pay", "-o", output).want(t, tt.want)
		}
	}
	refusal = refuse(codes.NotFound, "x", &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "name", Description: `there is no upstream "pay"`}}})
	sh.run(t.Context(), "probe", "pay").want(t, exitNotFound, "Error: there is no upstream \"pay\"\n")
	sh.run(t.Context(), "probe").want(t, exitUsage, "nothing to probe")
}

func TestAnUpstreamIsProbedFromAFile(t *testing.T) {
	var asked *adminv1.ProbeUpstreamRequest
	var refusal error
	sh := serveFake(t, fakeAdmin{diagnostics: fakeDiagnostics{probe: func(r *adminv1.ProbeUpstreamRequest) (*adminv1.ProbeUpstreamResponse, error) {
		asked = r
		return &adminv1.ProbeUpstreamResponse{Results: []*adminv1.ProbeResult{{Outcome: adminv1.ProbeOutcome_PROBE_OUTCOME_OK}}}, refusal
	}}})
	dir := t.TempDir()
	one := writeFile(t, dir, "one.yaml", "kind: TrustBundle\nname: sys\nsystem: {}\n---\nkind: Upstream\nname: pay\nendpoints:\n- address: a:1\ntls: {verifyDepth: 2}\n")
	two := writeFile(t, dir, "two.yaml", "kind: Upstream\nname: a\n---\nkind: Upstream\nname: b\n")

	sh.run(t.Context(), "probe", "-f", one).want(t, exitOK)
	if u := asked.GetUpstream(); u.GetName() != "pay" || u.GetTls().GetVerifyDepth() != 2 {
		t.Errorf("asked for %v", asked)
	}
	sh.run(t.Context(), "probe", "-f", two, "b").want(t, exitOK)
	if u := asked.GetUpstream(); u.GetName() != "b" {
		t.Errorf("asked for %v", asked)
	}
	sh.run(t.Context(), "probe", "-f", two).want(t, exitUsage, "holds several upstreams; name one of a, b")
	sh.run(t.Context(), "probe", "-f", two, "c").want(t, exitNotFound, `holds no upstream "c"`)
	sh.run(t.Context(), "probe", "-f", writeFile(t, dir, "none.yaml", "kind: TrustBundle\nname: sys\nsystem: {}\n")).want(t, exitInvalid, "holds no upstream")

	refusal = refuse(codes.InvalidArgument, "x", &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "upstream.endpoints[0].address", Description: "must be host:port"}, {Field: "upstream.tls.verify_depth", Description: "is odd"}}})
	sh.run(t.Context(), "probe", "-f", one).want(t, exitInvalid, one+":8: document 2 (Upstream pay): endpoints[0].address: must be host:port", one+":9: document 2 (Upstream pay): tls.verifyDepth: is odd")
}
