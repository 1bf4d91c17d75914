package ca

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func newShow(env *command.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Show the certificates of a CA's directory, or of a PEM file",
		Long: `Show lists the certificates in a CA's directory or, given a FILE, the details of
each certificate in it. Private keys are not read.`,
		Example: "  drawbridge pki show --dir pki\n  drawbridge pki show pki/web.pem",
		Args:    cobra.MaximumNArgs(1),
	}
	dir := dirFlag(cmd.Flags())
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 1 {
			return showFile(env.Out, args[0])
		}
		return showDir(env, *dir)
	}
	return cmd
}

func showDir(env *command.Env, dir string) error {
	entries, err := pki.List(dir)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return &exit.Error{Code: exit.NotFound, Summary: dir + " holds no certificates"}
	}
	t := &terminal.Table{Header: []string{"FILE", "SUBJECT", "SANS", "FOR", "DAYS LEFT", "KEY", "SHA-256"}}
	for _, e := range entries {
		info := certs.Describe(e.Chain)
		shown := certificateInfo(info)
		file := filepath.Base(e.CertPath)
		if e.KeyPath == "" {
			file += " (no key)"
		}
		t.Add(file, info.Subject, terminal.FirstThree(info.SANs), purpose(e.Chain[0]), view.DaysLeft(shown, time.Now()), info.KeyType, view.ShortFingerprint(shown))
	}
	return env.WriteTable(t)
}

// purpose returns the use of a certificate.
func purpose(cert *x509.Certificate) string {
	if cert.IsCA {
		return "ca"
	}
	var words []string
	for _, u := range cert.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageServerAuth:
			words = append(words, "server")
		case x509.ExtKeyUsageClientAuth:
			words = append(words, "client")
		}
	}
	return strings.Join(words, ",")
}

// certificateInfo returns the parts of info that the tables show.
func certificateInfo(info certs.Info) *adminv1.CertificateInfo {
	return &adminv1.CertificateInfo{NotAfter: timestamppb.New(info.NotAfter), Sha256Fingerprint: info.SHA256Fingerprint}
}

func showFile(w io.Writer, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	n := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return &exit.Error{Code: exit.Invalid, Summary: fmt.Sprintf("%s: certificate %d: %v", path, n+1, err)}
		}
		if n > 0 {
			fmt.Fprintln(w)
		}
		showCertificate(w, cert)
		n++
	}
	if n == 0 {
		return &exit.Error{Code: exit.Invalid, Summary: path + " holds no certificate in PEM"}
	}
	return nil
}

func showCertificate(w io.Writer, cert *x509.Certificate) {
	info := certs.Describe([]*x509.Certificate{cert})
	left := view.DaysLeft(certificateInfo(info), time.Now())
	if left != "expired" {
		left += " days left"
	}
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-12s %s\n", name, terminal.Printable(value))
		}
	}
	line("Subject", info.Subject)
	line("SANs", strings.Join(info.SANs, ", "))
	line("Issuer", info.Issuer)
	line("Serial", info.Serial)
	line("Valid", fmt.Sprintf("%s to %s (%s)", info.NotBefore.UTC().Format(time.RFC3339), info.NotAfter.UTC().Format(time.RFC3339), left))
	line("Key", info.KeyType)
	line("Usages", strings.Join(info.KeyUsages, ", "))
	line("SHA-256", info.SHA256Fingerprint)
	for _, warning := range info.Warnings {
		line("Warning", warning)
	}
}
