package main

import (
	"crypto/x509"
	"encoding/pem"
	"os"

	"github.com/spf13/pflag"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// clientCertFlags are the flags that describe the verified certificate of a client.
type clientCertFlags struct {
	file, fingerprint, issuer string
	sans                      []string
}

func clientFlags(flags *pflag.FlagSet) *clientCertFlags {
	f := &clientCertFlags{}
	flags.StringVar(&f.file, "client-cert", "", "the `file` with the client's certificate, in PEM")
	flags.StringArrayVar(&f.sans, "client-san", nil, "a subject alternative `name` of the client's certificate; may be repeated")
	flags.StringVar(&f.fingerprint, "client-fingerprint", "", "the SHA-256 `fingerprint` of the client's certificate")
	flags.StringVar(&f.issuer, "client-issuer", "", "the distinguished `name` of the client certificate's issuer")
	return f
}

// identity returns the certificate that the flags describe, or nil if none is set.
func (f *clientCertFlags) identity() (*adminv1.ExplainedClient, error) {
	described := f.fingerprint != "" || f.issuer != "" || len(f.sans) > 0
	switch {
	case f.file != "" && described:
		return nil, exit.UsageError("--client-cert cannot be combined with the other --client flags: it describes the whole certificate")
	case described:
		return &adminv1.ExplainedClient{SubjectAltNames: f.sans, Sha256Fingerprint: f.fingerprint, Issuer: f.issuer}, nil
	case f.file == "":
		return nil, nil
	}
	text, err := os.ReadFile(f.file)
	if err != nil {
		return nil, exit.UsageError("--client-cert: " + err.Error())
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, exit.UsageError("--client-cert: " + terminal.Printable(f.file) + " holds a certificate that cannot be parsed")
		}
		out := &adminv1.ExplainedClient{Sha256Fingerprint: certs.Identify(leaf).SHA256Fingerprint, Issuer: certs.IssuerName(leaf)}
		for _, s := range certs.SANsOf(leaf) {
			out.SubjectAltNames = append(out.SubjectAltNames, s.String())
		}
		return out, nil
	}
	return nil, exit.UsageError("--client-cert: " + terminal.Printable(f.file) + " holds no certificate in PEM")
}
