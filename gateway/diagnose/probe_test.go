package diagnose

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLargeAnswerIsCut(t *testing.T) {
	answer := func(certificates, bytes int) *adminv1.ProbeUpstreamResponse {
		r := &adminv1.ProbeResult{Endpoint: "a:1", Explanation: "why", AcceptableCas: []string{strings.Repeat("c", bytes)}}
		for range certificates {
			r.Chain = append(r.Chain, &adminv1.CertificateInfo{Subject: strings.Repeat("s", bytes)})
		}
		return &adminv1.ProbeUpstreamResponse{Results: []*adminv1.ProbeResult{r}}
	}
	for _, c := range []struct {
		answer           *adminv1.ProbeUpstreamResponse
		certificates, as int
	}{{answer(20, 10), 20, 1}, {answer(20, 100), 1, 1}, {answer(2, 1000), 0, 0}} {
		fit(c.answer, 1000)
		if r := c.answer.Results[0]; len(r.Chain) != c.certificates || len(r.AcceptableCas) != c.as || r.Explanation != "why" {
			t.Errorf("%d certificates, %d CAs are left", len(r.Chain), len(r.AcceptableCas))
		}
	}
}
