package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// probe probes a stored upstream with one endpoint.
func (g *gateway) probe(upstream string) *adminv1.ProbeResult {
	g.t.Helper()
	resp, err := g.diagnostics.ProbeUpstream(longContext(g.t), &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Name{Name: upstream}})
	if err != nil {
		g.t.Fatalf("ProbeUpstream %s: %v", upstream, err)
	}
	if len(resp.GetResults()) != 1 {
		g.t.Fatalf("ProbeUpstream %s: %d results", upstream, len(resp.GetResults()))
	}
	return resp.GetResults()[0]
}

// expectProbe checks the result of a probe, and that its texts contain the
// facts. A probe waits only briefly for what it tries in addition to the handshake, so a
// probe that lacks something is repeated: the machine may have stalled.
func expectProbe(t testing.TB, g *gateway, upstream string, reason adminv1.Reason, facts, advice []string) {
	t.Helper()
	var faults []string
	for range 5 {
		if faults = probeFaults(g.probe(upstream), reason, facts, advice); len(faults) == 0 {
			return
		}
	}
	t.Errorf("a probe of %s: %s", upstream, strings.Join(faults, "; "))
}

// probeFaults returns how the result of a probe differs from what is expected.
func probeFaults(r *adminv1.ProbeResult, reason adminv1.Reason, facts, advice []string) (faults []string) {
	outcome := adminv1.ProbeOutcome_PROBE_OUTCOME_FAILED
	if reason == adminv1.Reason_REASON_UNSPECIFIED {
		outcome = adminv1.ProbeOutcome_PROBE_OUTCOME_OK
	}
	if r.GetOutcome() != outcome || r.GetReason() != reason {
		return []string{fmt.Sprintf("it returned %v, %v, want %v: %s", r.GetOutcome(), r.GetReason(), reason, r.GetExplanation())}
	}
	for _, fact := range facts {
		if !strings.Contains(r.GetExplanation(), fact) {
			faults = append(faults, fmt.Sprintf("the explanation does not name %q: %s", fact, r.GetExplanation()))
		}
	}
	for _, what := range advice {
		if !strings.Contains(r.GetSuggestion().GetText(), what) {
			faults = append(faults, fmt.Sprintf("the suggestion does not say %q: %s", what, r.GetSuggestion().GetText()))
		}
	}
	return faults
}

// expectProbeCommand checks the command line's output for the same probe, and
// its exit code.
func expectProbeCommand(t testing.TB, g *gateway, upstream string, reason adminv1.Reason) {
	t.Helper()
	r := g.cli("probe", upstream, "-o", "json")
	var answer struct {
		Results []struct{ Outcome, Reason, Explanation string }
	}
	if err := json.Unmarshal([]byte(r.stdout), &answer); err != nil || len(answer.Results) != 1 {
		t.Fatalf("drawbridge probe %s: %v: %s", upstream, err, r)
	}
	got := answer.Results[0]
	if reason == adminv1.Reason_REASON_UNSPECIFIED {
		if r.code != 0 || got.Outcome != "OK" || got.Reason != "" || got.Explanation == "" {
			t.Errorf("drawbridge probe %s: %s", upstream, r)
		}
		return
	}
	if r.code == 0 || got.Outcome != "FAILED" || got.Reason != word(reason) || got.Explanation == "" {
		t.Errorf("drawbridge probe %s: want %s: %s", upstream, word(reason), r)
	}
}

// word returns a reason as the command line, the log and metrics spell it.
func word(reason adminv1.Reason) string { return strings.TrimPrefix(reason.String(), "REASON_") }

// crl returns a revocation list of ca that revokes the given certificates.
func crl(t testing.TB, ca *pki.CA, revoked ...*pki.Issued) []byte {
	t.Helper()
	return crlWith(t, ca, pki.CRLOptions{}, revoked...)
}

func crlWith(t testing.TB, ca *pki.CA, o pki.CRLOptions, revoked ...*pki.Issued) []byte {
	t.Helper()
	for _, r := range revoked {
		o.Revoked = append(o.Revoked, r.Leaf.SerialNumber)
	}
	list, err := ca.CRL(o)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// withCRLs adds revocation lists to a bundle.
func withCRLs(bundle *adminv1.TrustBundle, lists ...[]byte) *adminv1.TrustBundle {
	for _, l := range lists {
		bundle.Crls = append(bundle.Crls, &adminv1.Crl{Source: &adminv1.Crl_Pem{Pem: string(l)}})
	}
	return bundle
}

// full returns the number of an upstream's full handshakes with a reason. The
// upstream must have one endpoint.
func (g *gateway) full(name string, reason adminv1.FullHandshakeReason) int64 {
	g.t.Helper()
	all := g.upstream(name).GetEndpoints()[0].GetFullHandshakes()
	i := slices.IndexFunc(all, func(f *adminv1.FullHandshakes) bool { return f.GetReason() == reason })
	if i < 0 {
		return 0
	}
	return all[i].GetCount()
}

// outdated describes a revocation list that was due an hour ago.
var outdated = pki.CRLOptions{ThisUpdate: time.Now().Add(-48 * time.Hour), NextUpdate: time.Now().Add(-time.Hour)}

// fingerprint returns a certificate's sha256_fingerprint as in the API.
func fingerprint(issued *pki.Issued) string {
	sum := sha256.Sum256(issued.Leaf.Raw)
	return hex.EncodeToString(sum[:])
}
