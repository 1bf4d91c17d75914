// A write of a valid but suspicious certificate, or of a suspicious use of a
// certificate, returns warnings as text and as codes.

package e2e

import (
	"bytes"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestUploadsReturnFindings(t *testing.T) {
	t.Parallel()
	root := newCA(t, "e2e root")
	between := intermediate(t, root)
	now, day := time.Now(), 24*time.Hour
	server := func(from *pki.CA, o pki.LeafOptions) *pki.Issued {
		o.DNSNames = []string{serverName}
		return issue(t, from, o)
	}
	whole := server(between, pki.LeafOptions{})
	leafPEM, restPEM := pem.Decode(whole.ChainPEM)
	leaf := pem.EncodeToMemory(leafPEM)
	with := func(i *pki.Issued, chain ...[]byte) *pki.Issued {
		return &pki.Issued{ChainPEM: bytes.Join(chain, nil), KeyPEM: i.KeyPEM, Leaf: i.Leaf}
	}
	type finding = adminv1.CertificateFinding
	g := startGateway(t)
	for name, c := range map[string]struct {
		issued *pki.Issued
		want   []finding
	}{
		"fine":         {whole, nil},
		"order":        {with(whole, restPEM, leaf), []finding{adminv1.CertificateFinding_CERTIFICATE_FINDING_ORDER_MENDED}},
		"duplicate":    {with(whole, leaf, leaf, restPEM), []finding{adminv1.CertificateFinding_CERTIFICATE_FINDING_DUPLICATE}},
		"stranger":     {with(whole, leaf, restPEM, intermediate(t, newCA(t, "another")).CertPEM()), []finding{adminv1.CertificateFinding_CERTIFICATE_FINDING_STRANGER}},
		"client":       {issue(t, root, pki.LeafOptions{CommonName: "client", Usage: pki.Client}), nil},
		"near-expiry":  {server(root, pki.LeafOptions{NotAfter: now.Add(10 * day)}), []finding{adminv1.CertificateFinding_CERTIFICATE_FINDING_NEAR_EXPIRY}},
		"expired":      {server(root, pki.LeafOptions{NotBefore: now.Add(-9 * day), NotAfter: now.Add(-day)}), []finding{adminv1.CertificateFinding_CERTIFICATE_FINDING_EXPIRED}},
		"not-yet":      {server(root, pki.LeafOptions{NotBefore: now.Add(day), NotAfter: now.Add(90 * day)}), []finding{adminv1.CertificateFinding_CERTIFICATE_FINDING_NOT_YET_VALID}},
		"long-lived":   {server(root, pki.LeafOptions{NotAfter: now.Add(800 * day)}), []finding{adminv1.CertificateFinding_CERTIFICATE_FINDING_LONG_LIFETIME}},
		"intermediate": {with(whole, leaf), []finding{adminv1.CertificateFinding_CERTIFICATE_FINDING_MISSING_INTERMEDIATE}},
	} {
		resp, err := g.admin.PutCertificate(longContext(t), &adminv1.PutCertificateRequest{Certificate: certificate(name, c.issued)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		info := resp.GetCertificate().GetInfo()
		for _, want := range c.want {
			if !slices.Contains(info.GetFindings(), want) {
				t.Errorf("%s: findings are %v, want %v", name, info.GetFindings(), want)
			}
		}
		if len(info.GetFindings()) != len(info.GetWarnings()) || len(c.want) == 0 && len(info.GetFindings()) != 0 {
			t.Errorf("%s: %v, %q", name, info.GetFindings(), info.GetWarnings())
		}
		for _, w := range info.GetWarnings() {
			if !slices.ContainsFunc(resp.GetChange().GetWarnings(), func(c *adminv1.Warning) bool { return strings.Contains(c.GetMessage(), w) }) {
				t.Errorf("%s: the answer warns of %v, not of %q", name, resp.GetChange().GetWarnings(), w)
			}
		}
	}
	// The use of a certificate may be suspicious.
	for what, c := range map[string]struct {
		change *adminv1.Change
		word   string
	}{
		"a server certificate as a client certificate": {g.apply(trustBundle("ca", root), upstream("up", &adminv1.UpstreamTls{Certificate: "fine", TrustBundles: []string{"ca"}}, "127.0.0.1:1")), "clientAuth"},
		"a client certificate as a server certificate": {g.apply(&adminv1.Listener{Name: "in", Address: "127.0.0.1:0", Protocol: protocolTCP, Upstream: "up",
			Tls: &adminv1.ServerTls{Certificates: []string{"client"}}}), "serverAuth"},
	} {
		if !slices.ContainsFunc(c.change.GetWarnings(), func(w *adminv1.Warning) bool { return strings.Contains(w.GetMessage(), c.word) }) {
			t.Errorf("%s: the answer warns of %v", what, c.change.GetWarnings())
		}
	}
}
