package pki_test

import (
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

func TestCRL(t *testing.T) {
	root, err := pki.NewRoot(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ca, err := root.NewIntermediate(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	from := time.Now().Add(-time.Hour).Truncate(time.Second).UTC()
	numbers := make(map[string]bool)
	for _, o := range []pki.CRLOptions{
		{},
		{Revoked: []*big.Int{big.NewInt(7), big.NewInt(1 << 40)}},
		{ThisUpdate: from, NextUpdate: from.Add(time.Minute)},
	} {
		text, err := ca.CRL(o)
		if err != nil {
			t.Fatal(err)
		}
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "X509 CRL" || len(rest) > 0 {
			t.Fatalf("PEM %q", text)
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if err := list.CheckSignatureFrom(ca.Certificate()); err != nil {
			t.Error(err)
		}
		if len(list.RevokedCertificateEntries) != len(o.Revoked) {
			t.Errorf("%d entries, want %d", len(list.RevokedCertificateEntries), len(o.Revoked))
		}
		if !o.ThisUpdate.IsZero() && (!list.ThisUpdate.Equal(o.ThisUpdate) || !list.NextUpdate.Equal(o.NextUpdate)) {
			t.Errorf("from %v to %v", list.ThisUpdate, list.NextUpdate)
		}
		if now := time.Now(); o.ThisUpdate.IsZero() && (list.ThisUpdate.After(now) || list.NextUpdate.Before(now)) {
			t.Errorf("the list is valid from %v to %v, not now", list.ThisUpdate, list.NextUpdate)
		}
		numbers[list.Number.String()] = true
	}
	if len(numbers) != 3 {
		t.Errorf("numbers %v", numbers)
	}
}

func TestCRLNeedsTheKey(t *testing.T) {
	dir := t.TempDir()
	if _, err := pki.Init(dir, pki.CAOptions{}, &pki.CAOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "ca-key.pem")); err != nil {
		t.Fatal(err)
	}
	ca, err := pki.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Root().CRL(pki.CRLOptions{}); err == nil || !strings.Contains(err.Error(), "private key") {
		t.Errorf("error %v", err)
	}
	if _, err := ca.CRL(pki.CRLOptions{}); err != nil {
		t.Error(err)
	}
}
