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

func TestSuggestionsNameFieldAndValue(t *testing.T) {
	for text, want := range map[string][2]string{
		`set tls.verify_name to "a.example"; or have the certificate issued again`:   {"tls.verify_name", "a.example"},
		`set tls.trust_bundles to ["corp"]`:                                          {"tls.trust_bundles", `["corp"]`},
		`set http.protocol to HTTP_PROTOCOL_1_1, and leave tls.alpn out`:             {"http.protocol", "HTTP_PROTOCOL_1_1"},
		`set tls.verify_depth to 1`:                                                  {"tls.verify_depth", "1"},
		`start the upstream, or set endpoints[0].address to the address that it has`: {"endpoints[0].address", ""},
		`add ["TLS_X"] to tls.cipher_suites`:                                         {"tls.cipher_suites", ""},
		`have the upstream send the intermediate`:                                    {"", ""},
	} {
		s := suggestion(text)
		if got := [2]string{s.GetField(), s.GetValue()}; got != want || s.GetText() != text {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if suggestion("") != nil {
		t.Error("no text is a suggestion")
	}
}
