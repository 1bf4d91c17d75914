package admin

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestDiagnosticsAreServed(t *testing.T) {
	r := start(t)
	putUpstreams(t, r, 1)
	byName := func(name string) *adminv1.ProbeUpstreamRequest {
		return &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Name{Name: name}, Endpoint: "a:1"}
	}
	probe, err := r.diagnostics.ProbeUpstream(t.Context(), byName("u-0000"))
	if err != nil || len(probe.GetResults()) != 1 || probe.GetResults()[0].GetEndpoint() != "a:1" {
		t.Errorf("probe: %v, %v", probe, err)
	}
	_, err = r.diagnostics.ProbeUpstream(t.Context(), byName("none"))
	wantCode(t, err, codes.NotFound)
	explain, err := r.diagnostics.ExplainRoute(t.Context(), &adminv1.ExplainRouteRequest{Host: "a.example"})
	if err != nil || explain.GetHost() != "a.example" {
		t.Errorf("explain: %v, %v", explain, err)
	}
	flush, err := r.diagnostics.FlushSessions(t.Context(), &adminv1.FlushSessionsRequest{Upstream: "u-0000"})
	if err != nil || flush.GetFlushed() != 7 {
		t.Errorf("flush: %v, %v", flush, err)
	}
	_, err = r.diagnostics.FlushSessions(t.Context(), &adminv1.FlushSessionsRequest{Upstream: "none"})
	wantCode(t, err, codes.NotFound)
	if log := r.log.String(); !strings.Contains(log, "write: method=/drawbridge.admin.v1.DiagnosticsService/FlushSessions") {
		t.Errorf("the flush is not in the log as a write:\n%s", log)
	}
}

func TestADrainIsCheckedAndHasDefaults(t *testing.T) {
	r := start(t)
	putUpstreams(t, r, 1)
	hex := strings.Repeat("ab", 32)
	for _, c := range []struct {
		name string
		req  *adminv1.DrainConnectionsRequest
		want string // the call that the gateway receives; "" if it receives none
		bad  []string
	}{
		{"defaults", &adminv1.DrainConnectionsRequest{}, `u-0000 "" 30s`, nil},
		{"a period", &adminv1.DrainConnectionsRequest{Period: durationpb.New(2 * time.Minute)}, `u-0000 "" 2m0s`, nil},
		{"at once", &adminv1.DrainConnectionsRequest{Period: durationpb.New(0)}, `u-0000 "" 0s`, nil},
		{"a fingerprint", &adminv1.DrainConnectionsRequest{Sha256Fingerprint: hex}, `u-0000 "` + hex + `" 30s`, nil},
		{"a fingerprint as openssl prints it", &adminv1.DrainConnectionsRequest{Sha256Fingerprint: strings.TrimSuffix(strings.Repeat("AB:", 32), ":")}, `u-0000 "` + hex + `" 30s`, nil},
		{"too long", &adminv1.DrainConnectionsRequest{Period: durationpb.New(25 * time.Hour)}, "", []string{"period"}},
		{"an invalid fingerprint and an invalid period", &adminv1.DrainConnectionsRequest{Period: durationpb.New(-1), Sha256Fingerprint: hex[1:]}, "", []string{"sha256_fingerprint", "period"}},
		{"an invalid fingerprint", &adminv1.DrainConnectionsRequest{Sha256Fingerprint: ":"}, "", []string{"sha256_fingerprint"}},
		{"an invalid duration", &adminv1.DrainConnectionsRequest{Period: &durationpb.Duration{Seconds: 1, Nanos: -1}}, "", []string{"period"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.req.Upstream = "u-0000"
			r.gateway.drained = ""
			resp, err := r.diagnostics.DrainConnections(t.Context(), c.req)
			if len(c.bad) == 0 {
				if err != nil || resp.GetConnections() != 3 || r.gateway.drained != c.want {
					t.Errorf("%v, %v; asked %s", resp, err, r.gateway.drained)
				}
				return
			}
			wantCode(t, err, codes.InvalidArgument)
			var got []string
			for _, v := range detail[*errdetails.BadRequest](t, err).GetFieldViolations() {
				got = append(got, v.GetField())
			}
			if fmt.Sprint(got) != fmt.Sprint(c.bad) || r.gateway.drained != "" {
				t.Errorf("faults %v; asked %s", got, r.gateway.drained)
			}
		})
	}
	_, err := r.diagnostics.DrainConnections(t.Context(), &adminv1.DrainConnectionsRequest{Upstream: "none"})
	wantCode(t, err, codes.NotFound)
}

func TestWritesForwardRequireProbe(t *testing.T) {
	r := start(t)
	var seen []adminv1.RequireProbe
	r.gateway.before = func(_ context.Context, e store.Edit) { seen = append(seen, e.RequireProbe) }
	options := &adminv1.WriteOptions{RequireProbe: adminv1.RequireProbe_REQUIRE_PROBE_ALL, DryRun: true}
	if _, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: upstream("a"), Options: options}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{Resources: []*adminv1.Resource{store.Wrap(upstream("a"))}, Options: options}); err != nil {
		t.Fatal(err)
	}
	// A malformed resource is not applied, even if the probe succeeds.
	_, err := r.admin.Apply(t.Context(), &adminv1.ApplyRequest{Resources: []*adminv1.Resource{{}, store.Wrap(upstream("a"))}, Options: options})
	wantCode(t, err, codes.InvalidArgument)
	_, err = r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: upstream("a"), Options: &adminv1.WriteOptions{RequireProbe: 9}})
	wantCode(t, err, codes.InvalidArgument)
	if v := detail[*errdetails.BadRequest](t, err).GetFieldViolations(); len(v) != 1 || v[0].GetField() != "options.require_probe" {
		t.Errorf("faults %v", v)
	}
	if want := []adminv1.RequireProbe{2, 2, 0, 0}; fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("required %v, want %v", seen, want)
	}
}

// answer returns the answer of a probe of n endpoints, each with more text than
// a status can hold.
func answer(n int) *adminv1.ProbeUpstreamResponse {
	a := &adminv1.ProbeUpstreamResponse{}
	for i := range n {
		r := &adminv1.ProbeResult{
			Endpoint: fmt.Sprintf("up-%d.example:443", i), Outcome: adminv1.ProbeOutcome_PROBE_OUTCOME_FAILED, Reason: adminv1.Reason_REASON_NAME_MISMATCH,
			Explanation: "the certificate is for a.example; we verify pay.example", Suggestion: &adminv1.Suggestion{Field: "tls.verify_name", Value: "a.example", Text: `set tls.verify_name to "a.example"`},
		}
		for range 20 {
			r.Chain = append(r.Chain, &adminv1.CertificateInfo{Subject: strings.Repeat("s", 400), Sans: strings.Fields(strings.Repeat("DNS:a.example ", 100))})
			r.AcceptableCas = append(r.AcceptableCas, strings.Repeat("c", 200))
		}
		a.Results = append(a.Results, r)
	}
	return a
}

func TestProbeResultsAreCutToFit(t *testing.T) {
	for _, c := range []struct {
		name               string
		upstreams, results int
		wantAnswers        int // minimum number of answers
		wantResults        int // number of results in the first answer
	}{
		{"one endpoint", 1, 1, 1, 1},
		{"ten endpoints", 1, 10, 1, 8},
		{"a thousand endpoints", 1, 1000, 1, 2},
		{"a thousand upstreams", 1000, 1, 5, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			refusal := &invalid.Error{}
			for i := range c.upstreams {
				refusal.Details = append(refusal.Details, answer(c.results))
				for j := range c.results {
					refusal.Faults = append(refusal.Faults, invalid.Fault{Class: invalid.Unproven, Field: invalid.Path(fmt.Sprintf("resources[%d].upstream.endpoints[%d]", i, j)), Message: "NAME_MISMATCH: …"})
				}
			}
			st, ok := statusOf(refusal)
			if !ok || st.Code() != codes.FailedPrecondition || wireSize(st) > maxStatus {
				t.Fatalf("%v: %d bytes", st.Code(), wireSize(st))
			}
			if info := detail[*errdetails.ErrorInfo](t, st.Err()); info.GetReason() != "PROBE_FAILED" {
				t.Errorf("reason %s", info.GetReason())
			}
			if v := detail[*errdetails.PreconditionFailure](t, st.Err()).GetViolations(); len(v) == 0 || v[0].GetSubject() != "resources[0].upstream.endpoints[0]" {
				t.Errorf("violations %v", v)
			}
			var answers []*adminv1.ProbeUpstreamResponse
			for _, d := range st.Details() {
				if a, ok := d.(*adminv1.ProbeUpstreamResponse); ok {
					answers = append(answers, a)
				}
			}
			if len(answers) < c.wantAnswers || len(answers[0].GetResults()) < c.wantResults {
				t.Fatalf("%d answers", len(answers))
			}
			for _, a := range answers {
				for _, r := range a.GetResults() {
					if r.GetReason() != adminv1.Reason_REASON_NAME_MISMATCH || !strings.Contains(r.GetExplanation(), "pay.example") || r.GetSuggestion().GetText() == "" {
						t.Errorf("result %v", r)
					}
				}
			}
			if got := refusal.Details[0].(*adminv1.ProbeUpstreamResponse).GetResults()[0]; len(got.GetChain()) != 20 {
				t.Error("the gateway's own answer was cut")
			}
		})
	}
}

func TestARejectionReachesTheClient(t *testing.T) {
	r := start(t)
	r.gateway.refusal = &invalid.Error{
		Faults:  []invalid.Fault{{Class: invalid.Unproven, Field: "upstream.endpoints[0]", Message: "NAME_MISMATCH: the certificate is for a.example"}},
		Details: []any{answer(1)},
	}
	_, err := r.admin.PutUpstream(t.Context(), &adminv1.PutUpstreamRequest{Upstream: upstream("a")})
	wantCode(t, err, codes.FailedPrecondition)
	if m := status.Convert(err).Message(); m != "upstream.endpoints[0]: NAME_MISMATCH: the certificate is for a.example" {
		t.Errorf("message %q", m)
	}
	if a := detail[*adminv1.ProbeUpstreamResponse](t, err); a.GetResults()[0].GetSuggestion().GetText() != `set tls.verify_name to "a.example"` {
		t.Errorf("answer %v", a)
	}
}
