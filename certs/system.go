package certs

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs/keyfile"
)

// The files and directories where systems keep their roots, most common first.
// The list is from crypto/x509, which cannot reload the roots after a change.
var (
	systemRootFiles = []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Gentoo, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL 6
		"/etc/ssl/ca-bundle.pem",                            // OpenSUSE
		"/etc/pki/tls/cacert.pem",                           // OpenELEC
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // CentOS, RHEL 7
		"/etc/ssl/cert.pem",                                 // Alpine, the BSDs, macOS
	}
	systemRootDirs = []string{
		"/etc/ssl/certs",
		"/etc/pki/tls/certs",
	}
)

// SystemTrustBundle reads the roots of the operating system. As in OpenSSL,
// SSL_CERT_FILE names a file and SSL_CERT_DIR directories; otherwise the lists
// above apply. Each call reads the files again. It fails if it finds no roots,
// because every verification would then fail. Revocation lists are as in
// TrustSource; their faults are Faults.
func SystemTrustBundle(crls ...CRLSource) (*TrustBundle, error) {
	var bad Faults
	lists := parseCRLSources(&bad, crls)
	if err := bad.err(); err != nil {
		return nil, err
	}
	b, err := systemRoots()
	if err != nil {
		return nil, err
	}
	b.crls = lists
	return b, nil
}

func systemRoots() (*TrustBundle, error) {
	files, dirs := systemRootFiles, systemRootDirs
	if f := os.Getenv("SSL_CERT_FILE"); f != "" {
		files = []string{f}
	}
	if d := os.Getenv("SSL_CERT_DIR"); d != "" {
		dirs = filepath.SplitList(d)
	}
	for _, f := range files {
		if b := readRoots(f); b != nil {
			return b, nil
		}
	}
	for _, d := range dirs {
		names, err := os.ReadDir(d)
		if err != nil {
			continue
		}
		var paths []string
		for _, n := range names {
			paths = append(paths, filepath.Join(d, n.Name()))
		}
		if b := readRoots(paths...); b != nil {
			return b, nil
		}
	}
	return nil, errors.New("this machine has no root certificates in " + strings.Join(append(files[:len(files):len(files)], dirs...), ", ") +
		": install the package ca-certificates, or name a file in SSL_CERT_FILE")
}

// readRoots returns the CA certificates in the files, or nil if it finds no
// certificate. Unlike ParseTrustBundle it skips certificates that it cannot
// use, as other programs do with these files.
func readRoots(paths ...string) *TrustBundle {
	var unique []*x509.Certificate
	seen := make(map[string]bool)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for _, c := range keyfile.LooseCertificates(text) {
			if !seen[string(c.Raw)] {
				seen[string(c.Raw)] = true
				unique = append(unique, c)
			}
		}
	}
	if len(unique) == 0 {
		return nil
	}
	return newTrustBundle(unique)
}
