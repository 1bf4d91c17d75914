package certs_test

import (
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// checkFaults fails the test unless an error is nil or Faults that may be
// shown to anybody.
func checkFaults(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var faults certs.Faults
	if !errors.As(err, &faults) || len(faults) == 0 {
		t.Fatalf("error %v is not Faults", err)
	}
	for _, f := range faults[:min(len(faults), 10)] {
		if f.Problem == "" || !utf8.ValidString(f.Problem) {
			t.Errorf("problem %q", f.Problem)
		}
		checkText(t, f.Problem)
	}
}

func FuzzParseCertificate(f *testing.F) {
	ca := certstest.NewCA(f)
	issued := ca.Intermediate(f).Server(f, "a.test")
	f.Add(issued.ChainPEM, issued.KeyPEM)
	f.Add(append(ca.CertPEM(), issued.ChainPEM...), issued.KeyPEM)
	f.Add(issued.KeyPEM, issued.ChainPEM)
	f.Add([]byte(nil), []byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----"), []byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, chain, key []byte) {
		c, err := certs.ParseCertificate(chain, key)
		checkFaults(t, err)
		if err != nil {
			// No part of a key that could be read may be told.
			if block, _ := pem.Decode(key); block != nil && len(block.Bytes) > 20 && strings.Contains(err.Error(), string(block.Bytes[8:20])) {
				t.Error("the error holds the key")
			}
			return
		}
		if info := c.Info(); info.ChainLength < 1 || len(info.SHA256Fingerprint) != 64 || c.Leaf() == nil {
			t.Errorf("info %+v", info)
		}
	})
}

func FuzzParseTrustBundle(f *testing.F) {
	ca := certstest.NewCA(f)
	f.Add(ca.CertPEM())
	f.Add(append([]byte("# text\n"), ca.CertPEM()...))
	f.Add(ca.Server(f, "a.test").ChainPEM)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END X-----\n-----END CERTIFICATE-----"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := certs.ParseTrustBundle(text)
		checkFaults(t, err)
		if err == nil && (b.Count() == 0 || len(b.Infos()) != b.Count() || !b.Equal(b)) {
			t.Errorf("a bundle of %d", b.Count())
		}
	})
}

func FuzzParseCipherSuites(f *testing.F) {
	for _, s := range []string{
		"HIGH:!aNULL:!MD5", "ECDHE+AESGCM:@STRENGTH", "-:+:!", "@", "+", "A+B+", "TLS_AES_128_GCM_SHA256", "ALL:-ALL:kRSA",
		"\x00\xff", "ECDHE-RSA-AES128-GCM-SHA256,,; ", "@SECLEVEL=\n",
	} {
		f.Add(s, "HIGH")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		ids, warnings, err := certs.ParseCipherSuites([]string{a, b})
		checkFaults(t, err)
		if (err == nil) != (len(ids) > 0) {
			t.Errorf("%d suites, error %v", len(ids), err)
		}
		seen := make(map[uint16]bool)
		for _, id := range ids {
			if seen[id] {
				t.Errorf("%x twice", id)
			}
			seen[id] = true
		}
		for _, w := range warnings {
			if strings.ContainsAny(w, "\n\r\x1b\x00") || !utf8.ValidString(w) {
				t.Errorf("warning %q", w)
			}
		}
	})
}
