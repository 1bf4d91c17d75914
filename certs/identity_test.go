package certs_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestAnIdentityIsThatOfInfo(t *testing.T) {
	leaf := certstest.Certificate(t, certstest.NewCA(t).Client(t, "alice")).Leaf()
	info := certs.Describe([]*x509.Certificate{leaf})
	if got := certs.IdentityOf(leaf); got.Subject != info.Subject || got.Fingerprint != info.SHA256Fingerprint || got.Subject != "CN=alice" {
		t.Errorf("identity %+v, info %+v", got, info)
	}
	if got := certs.IdentityOf(nil); got != (certs.Identity{}) {
		t.Errorf("of nobody: %+v", got)
	}
	hostile := &x509.Certificate{Subject: pkix.Name{CommonName: "a\nb" + strings.Repeat("x", 1000)}}
	if got := certs.IdentityOf(hostile).Subject; strings.Contains(got, "\n") || len(got) > 600 {
		t.Errorf("a hostile subject: %q", got)
	}
}
