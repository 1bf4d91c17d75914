package snapshot

import (
	"context"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A write of an upstream gets a warning if its client certificate leads to none of its
// CAs: on the first write, on an unchanged write, and after a restart.
func TestAForeignClientCertificateCausesAWarningAtEachWrite(t *testing.T) {
	w := newTestbed(t)
	u := tlsUpstream("u", &adminv1.UpstreamTls{Certificate: "own", TrustBundles: []string{"other"}})
	other := &adminv1.TrustBundle{Name: "other", Source: &adminv1.TrustBundle_Pem{Pem: string(certstest.NewCA(t).TrustPEM())}}
	check := func(what string, want int, rs ...store.Resource) {
		t.Helper()
		warnings := w.put(rs...)
		if len(warnings) != want || want > 0 && (warnings[0].Code != warnClientCertificate || !strings.Contains(warnings[0].Message, `certificate "own" leads to no CA of trust_bundles`)) {
			t.Errorf("%s: %v", what, warnings)
		}
	}
	check("a first write", 1, w.client("own"), other, u)
	check("an equal write", 1, u)
	check("another bundle", 0, &adminv1.TrustBundle{Name: "other", Source: &adminv1.TrustBundle_Pem{Pem: string(certstest.NewCA(t).TrustPEM())}})
	w.snap = testCompiler().Restore(context.Background(), w.snap.State())
	check("a write after a restart", 1, u)
	check("with the right bundle", 0, w.bundle("other"), u)
}
