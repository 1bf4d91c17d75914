package probe_test

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// sServer starts openssl s_server with a certificate and returns its address.
func sServer(t *testing.T, issued *pki.Issued, args ...string) string {
	t.Helper()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	leaf := leafOnly(issued).ChainPEM
	args = append([]string{"s_server", "-accept", "127.0.0.1:0", "-cert", file("leaf.pem", leaf), "-key", file("key.pem", issued.KeyPEM)}, args...)
	if rest := issued.ChainPEM[len(leaf):]; len(rest) > 0 {
		args = append(args, "-cert_chain", file("rest.pem", rest))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, openssl, args...)
	stdin, err := cmd.StdinPipe() // openssl ends when its input does
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	drained := make(chan struct{})
	address := make(chan string, 1)
	go func() {
		defer close(drained)
		defer close(address)
		for lines.Scan() {
			if rest, ok := strings.CutPrefix(lines.Text(), "ACCEPT "); ok {
				select {
				case address <- rest:
				default:
				}
			}
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		cancel()
		<-drained
		cmd.Wait()
	})
	addr, ok := <-address
	if !ok {
		t.Fatal("openssl s_server did not start")
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		t.Fatalf("openssl listens on %q", addr)
	}
	return addr
}

// caFile writes a root to a file.
func caFile(t *testing.T, ca *certstest.CA) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, ca.TrustPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProbesOfOpenSSL(t *testing.T) {
	ca, other := certstest.NewCA(t), rootNamed(t, "another root")
	between := ca.Intermediate(t)
	verify := []string{"-Verify", "3", "-verify_return_error", "-CAfile", caFile(t, ca)}
	good := ca.Server(t, "upstream.test")
	for _, c := range []struct {
		name          string
		issued        *pki.Issued
		args          []string
		change        func(*certs.ClientOptions)
		reason        certs.Reason
		facts, advice []string
		versions      []string
	}{
		{name: "good", issued: good, args: verify, facts: []string{"completed the handshake"}},
		{name: "another name", issued: ca.Server(t, "a.example"), reason: certs.ReasonNameMismatch,
			facts: []string{"for a.example; we verify upstream.test"}, advice: []string{`tls.verify_name to "a.example"`}},
		{name: "an untrusted CA", issued: other.Server(t, "upstream.test"), reason: certs.ReasonUnknownCA,
			facts: []string{"CN=another root"}, advice: []string{"tls.trust_bundles"}},
		{name: "a missing intermediate", issued: leafOnly(between.Server(t, "upstream.test")), reason: certs.ReasonUnknownCA,
			facts: []string{"one certificate", "CN=test intermediate of"}, advice: []string{"have the upstream send"}},
		{name: "no client certificate", issued: good, args: verify, change: func(o *certs.ClientOptions) { o.Certificate = nil },
			reason: certs.ReasonClientCertificateRequired, facts: []string{"requires", "CN=test root of"}, advice: []string{"tls.certificate"}},
		{name: "a client certificate of an unknown CA", issued: good, args: verify,
			change: func(o *certs.ClientOptions) { o.Certificate = certstest.Certificate(t, other.Client(t, "stranger")) },
			reason: certs.ReasonClientCertificateRejected, facts: []string{"CN=stranger", "CN=another root", "CN=test root of"}, advice: []string{"tls.certificate"}},
		{name: "no protocol in common", issued: good, args: []string{"-alpn", "http/1.1"},
			change: func(o *certs.ClientOptions) { o.NextProtos, o.RequireALPN = []string{"h2"}, true },
			reason: certs.ReasonALPNMismatch, facts: []string{"h2", "http/1.1 the handshake succeeds"}, advice: []string{"http.protocol to HTTP_PROTOCOL_1_1"}},
		{name: "no group in common", issued: good, args: []string{"-groups", "P-384"},
			change: func(o *certs.ClientOptions) { o.Groups, _ = certs.ParseGroups([]string{"X25519"}) },
			reason: certs.ReasonNoCommonGroup, facts: []string{"X25519", "the handshake succeeds"}, advice: []string{`tls.groups to ["X25519", "P-384"`}},
		{name: "no suite in common", issued: good, args: []string{"-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"},
			change: func(o *certs.ClientOptions) {
				o.CipherSuites, _, _ = certs.ParseCipherSuites([]string{"ECDHE-ECDSA-AES256-GCM-SHA384"})
			},
			reason: certs.ReasonNoCommonCipher, facts: []string{"the handshake succeeds"},
			advice: []string{`add ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]`}, versions: []string{"-tls1_2"}},
	} {
		versions := c.versions
		if versions == nil {
			versions = []string{"-tls1_2", "-tls1_3"}
		}
		for _, version := range versions {
			t.Run(c.name+version, func(t *testing.T) {
				_, o := mutual(t, ca)
				if c.change != nil {
					c.change(&o)
				}
				want(t, run(t, sServer(t, c.issued, append(c.args, version)...), o), c.reason, c.facts, c.advice)
			})
		}
	}
}

func leafOnly(issued *pki.Issued) *pki.Issued {
	const end = "-----END CERTIFICATE-----\n"
	leaf, _, _ := strings.Cut(string(issued.ChainPEM), end)
	return &pki.Issued{ChainPEM: []byte(leaf + end), KeyPEM: issued.KeyPEM, Leaf: issued.Leaf}
}

func TestAVersionThatOpenSSLDoesNotSupport(t *testing.T) {
	ca := certstest.NewCA(t)
	_, o := mutual(t, ca)
	o.MaxVersion = 0x0303
	want(t, run(t, sServer(t, ca.Server(t, "upstream.test"), "-tls1_3"), o), certs.ReasonProtocolVersion,
		[]string{"TLS 1.2", "the handshake succeeds"}, []string{"set tls.max_version to TLS_VERSION_1_3"})
}
