package main

import (
	"encoding/json"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestProbeJSONHasWordsPerEndpoint(t *testing.T) {
	answer := example(t, &adminv1.ProbeUpstreamResponse{}, "probe")
	sh := serveFake(t, fakeAdmin{diagnostics: fakeDiagnostics{probe: func(r *adminv1.ProbeUpstreamRequest) (*adminv1.ProbeUpstreamResponse, error) {
		if r.GetName() != "pay" || r.GetEndpoint() != "e:1" || r.GetHost() != "h" {
			t.Errorf("the requests are %v", r)
		}
		return answer, nil
	}}})
	r := sh.run(t.Context(), "probe", "pay", "--endpoint", "e:1", "--host", "h", "-o", "json")
	r.want(t, exit.Failure, `"reason": "NAME_MISMATCH"`, `"explanation": "The certificate is for a.example, b.example; we verify pay.example."`,
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
		t.Errorf("the first result is %+v", got)
	}
	if got := results.Results[3]; got.Reason == nil || got.ResumptionOffered == nil || *got.ResumptionOffered || got.AcceptableCas == nil || len(*got.AcceptableCas) != 0 {
		t.Errorf("empty fields are left out of %+v", got)
	}
	sh.run(t.Context(), "probe", "pay", "--endpoint", "e:1", "--host", "h", "-o", "yaml").want(t, exit.Failure, "results:\n  - endpoint: pay.example:443\n    outcome: OK\n    reason: \"\"\n")
	sh.run(t.Context(), "probe", "pay", "--endpoint", "e:1", "--host", "h").want(t, exit.Failure, "10.0.0.2:443  FAILED  NAME_MISMATCH\n")
}

func TestProbeExitsWithZeroOnlyIfAllHandshakesSucceed(t *testing.T) {
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
		{[]*adminv1.ProbeResult{ok, ok}, exit.OK},
		{[]*adminv1.ProbeResult{ok, failed}, exit.Failure},
		{[]*adminv1.ProbeResult{{}}, exit.Failure},
		{nil, exit.Failure},
	} {
		answer = &adminv1.ProbeUpstreamResponse{Results: tt.results}
		for _, output := range []string{"table", "json"} {
			sh.run(t.Context(), "probe", "pay", "-o", output).want(t, tt.want)
		}
	}
	refusal = refuse(codes.NotFound, "x", &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "name", Description: `there is no upstream "pay"`}}})
	sh.run(t.Context(), "probe", "pay").want(t, exit.NotFound, "Error: there is no upstream \"pay\"\n")
	sh.run(t.Context(), "probe").want(t, exit.Usage, "nothing to probe")
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

	sh.run(t.Context(), "probe", "-f", one).want(t, exit.OK)
	if u := asked.GetUpstream(); u.GetName() != "pay" || u.GetTls().GetVerifyDepth() != 2 {
		t.Errorf("the requests are %v", asked)
	}
	sh.run(t.Context(), "probe", "-f", two, "b").want(t, exit.OK)
	if u := asked.GetUpstream(); u.GetName() != "b" {
		t.Errorf("the requests are %v", asked)
	}
	sh.run(t.Context(), "probe", "-f", two).want(t, exit.Usage, "holds several upstreams; name one of a, b")
	sh.run(t.Context(), "probe", "-f", two, "c").want(t, exit.NotFound, `holds no upstream "c"`)
	sh.run(t.Context(), "probe", "-f", writeFile(t, dir, "none.yaml", "kind: TrustBundle\nname: sys\nsystem: {}\n")).want(t, exit.Invalid, "holds no upstream")

	refusal = refuse(codes.InvalidArgument, "x", &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "upstream.endpoints[0].address", Description: "must be host:port"}, {Field: "upstream.tls.verify_depth", Description: "is odd"}}})
	sh.run(t.Context(), "probe", "-f", one).want(t, exit.Invalid, one+":8: document 2 (Upstream pay): endpoints[0].address: must be host:port", one+":9: document 2 (Upstream pay): tls.verifyDepth: is odd")
}
