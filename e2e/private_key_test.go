// A private key goes in and never comes out: not in an answer, not in the log
// at its most talkative, not in what the command line prints, not in an error.
// Neither does a passphrase, nor an archive with a key in it.

package e2e

import (
	"encoding/base64"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

func TestPrivateKeysNeverComeOut(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	second := clientCert(t, a.ca, "second")
	const passphrase = "correct-horse-battery-staple"
	web := serveHTTPS(t, a.serverConfig(t), says("web"))
	dir := t.TempDir()
	g, ops := startGatewayWithOps(t, "--file-root", dir)

	var seen strings.Builder
	note := func(m proto.Message, err error) {
		t.Helper()
		if err != nil {
			fmt.Fprintln(&seen, err)
			return
		}
		fmt.Fprintln(&seen, protojson.Format(m), prototext.Format(m))
	}
	ctx := patient(t)
	watch, err := g.admin.WatchConfig(ctx, &adminv1.WatchConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	watched := func(until uint64) {
		t.Helper()
		for {
			m, err := watch.Recv()
			if err != nil {
				t.Fatal(err)
			}
			note(m, nil)
			if m.GetRevision() >= until {
				return
			}
		}
	}

	g.serveBoth(a, web, web)
	secure := listener("secure", protocolHTTP, "web")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	note(g.apply(certificate("front", a.server), secure), nil)
	put := func(c *adminv1.Certificate, dryRun bool) error {
		m, err := g.admin.PutCertificate(ctx, &adminv1.PutCertificateRequest{Certificate: c, Options: &adminv1.WriteOptions{DryRun: dryRun}})
		note(m, err)
		return err
	}
	if err := put(certificate("client", second), true); err != nil {
		t.Error(err)
	}
	if err := put(certificate("client", second), false); err != nil {
		t.Error(err)
	}
	certFile := writeFile(t, filepath.Join(dir, "c.pem"), a.client.ChainPEM)
	keyFile := writeFile(t, filepath.Join(dir, "c.key"), a.client.KeyPEM)
	files := &adminv1.Certificate{Name: "files", Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{CertificatePath: certFile, PrivateKeyPath: keyFile}}}
	if err := put(files, false); err != nil {
		t.Error(err)
	}

	// Passphrases and archives, right and wrong, of sources of every kind.
	locked, p12 := encryptedKey(t, second, passphrase), archive(t, second, passphrase)
	pkcs12 := func(data []byte, with string) *adminv1.Certificate {
		return &adminv1.Certificate{Name: "locked", Source: &adminv1.Certificate_Pkcs12{Pkcs12: &adminv1.CertificatePkcs12{Data: data, Passphrase: with}}}
	}
	encrypted := certificate("locked", &pki.Issued{ChainPEM: second.ChainPEM, KeyPEM: locked})
	encrypted.GetPem().Passphrase = passphrase
	watchedFiles := &adminv1.Certificate{Name: "locked", Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{
		CertificatePath: writeFile(t, filepath.Join(dir, "locked.p12"), p12), PassphrasePath: writeFile(t, filepath.Join(dir, "pass"), []byte(passphrase))}}}
	for _, c := range []*adminv1.Certificate{encrypted, pkcs12(p12, passphrase), watchedFiles} {
		if err := put(c, false); err != nil {
			t.Error(err)
		}
		got, err := g.admin.GetCertificate(ctx, &adminv1.GetCertificateRequest{Name: "locked"})
		note(got, err)
	}
	events := g.watchEvents()
	writeFile(t, filepath.Join(dir, "pass"), []byte("not "+passphrase))
	note(events.await(adminv1.EventType_EVENT_TYPE_FILE_REFUSED), nil)
	wrong := certificate("wrong", &pki.Issued{ChainPEM: second.ChainPEM, KeyPEM: locked})
	wrong.GetPem().Passphrase = "not " + passphrase
	for _, c := range []*adminv1.Certificate{wrong, pkcs12(p12, "not "+passphrase), pkcs12(p12[:len(p12)/2], passphrase)} {
		if err := put(c, true); err == nil {
			t.Error("a wrong passphrase was accepted")
		}
	}

	// Keys where they do not belong, and keys that are wrong.
	key := string(a.client.KeyPEM)
	for what, c := range map[string]*adminv1.Certificate{
		"of another chain": certificate("wrong", &pki.Issued{ChainPEM: a.client.ChainPEM, KeyPEM: a.server.KeyPEM}),
		"as the chain":     certificate("wrong", &pki.Issued{ChainPEM: a.client.KeyPEM, KeyPEM: a.client.KeyPEM}),
		"cut off":          certificate("wrong", &pki.Issued{ChainPEM: a.client.ChainPEM, KeyPEM: a.client.KeyPEM[:len(key)/2]}),
		"behind rubbish":   certificate("wrong", &pki.Issued{ChainPEM: a.client.ChainPEM, KeyPEM: append([]byte("rubbish "), key...)}),
		"as the name":      certificate(key, a.client),
		"beside its chain": certificate("wrong", &pki.Issued{ChainPEM: append([]byte(key), a.client.ChainPEM...), KeyPEM: a.client.KeyPEM}),
		"as a path":        {Name: "wrong", Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{CertificatePath: key, PrivateKeyPath: key}}},
	} {
		if err := put(c, true); err == nil {
			t.Errorf("a key %s was accepted", what)
		}
	}
	bundle := &adminv1.TrustBundle{Name: "wrong", Source: &adminv1.TrustBundle_Pem{Pem: key + string(a.ca.RootPEM())}}
	if m, err := g.admin.PutTrustBundle(ctx, &adminv1.PutTrustBundleRequest{TrustBundle: bundle}); err == nil {
		t.Error("a trust bundle with a key in it was accepted")
	} else {
		note(m, err)
	}

	_, _ = get(t, "http://"+g.address("web")+"/")
	watched(g.getStatus().GetRevision())
	one, err := g.admin.GetCertificate(ctx, &adminv1.GetCertificateRequest{Name: "client"})
	note(one, err)
	list, err := g.admin.ListCertificates(ctx, &adminv1.ListCertificatesRequest{})
	note(list, err)
	all, err := g.admin.GetConfig(ctx, &adminv1.GetConfigRequest{})
	note(all, err)
	ups, err := g.status.ListUpstreams(ctx, &adminv1.StatusServiceListUpstreamsRequest{})
	note(ups, err)
	note(g.getStatus(), nil)

	config := writeFile(t, filepath.Join(dir, "bridge.yaml"), []byte("kind: Certificate\nname: client\nfiles: {certificatePath: c.pem, privateKeyPath: c.key}\n"))
	inline := writeFile(t, filepath.Join(dir, "inline.yaml"), fmt.Appendf(nil,
		"kind: Certificate\nname: inline\npem: {certificateChain: %s, privateKey: %s, privateKye: %s}\n", quote(a.server.ChainPEM), quote(a.client.KeyPEM), quote(a.client.KeyPEM)))
	for _, args := range [][]string{
		{"get", "certificates"}, {"get", "certificates", "-o", "json"}, {"get", "certificates", "-o", "yaml"}, {"get", "certificate", "client", "-o", "yaml"},
		{"status"}, {"apply", "--dry-run", "-f", config}, {"apply", "-f", config}, {"apply", "-f", inline}, {"apply", "-f", keyFile}, {"get", "certificate", "client"},
	} {
		r := g.cli(args...)
		fmt.Fprintln(&seen, r.stdout, r.stderr)
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		_, body := get(t, "http://"+ops+path)
		_, _ = io.WriteString(&seen, body)
	}
	g.stop()
	seen.WriteString(g.out.String())

	if len(seen.String()) < 10_000 || !strings.Contains(seen.String(), "BEGIN CERTIFICATE") {
		t.Errorf("too little was seen for this test to mean anything: %d bytes", len(seen.String()))
	}
	expectNoKey(t, seen.String(), a.client, a.server, second)
	for what, secret := range map[string]string{"a passphrase": passphrase, "an archive": base64.StdEncoding.EncodeToString(p12)[:60], "an encrypted key": strings.Split(string(locked), "\n")[2]} {
		if strings.Contains(seen.String(), secret) {
			t.Errorf("%s came out", what)
		}
	}
}

// expectNoKey checks that a text holds no private key, in whatever wrapping.
func expectNoKey(t *testing.T, text string, keys ...*pki.Issued) {
	t.Helper()
	secrets := []string{"PRIVATE KEY"}
	for _, k := range keys {
		// In PKCS #8 a P-256 key is bytes 36 to 67; what follows is public,
		// and in the certificate as well. A line of PEM is 48 bytes.
		lines := strings.Split(string(k.KeyPEM), "\n")
		if lines[0] != "-----BEGIN PRIVATE KEY-----" || len(lines[1]) != 64 {
			t.Fatal("not the kind of key that this test knows")
		}
		secrets = append(secrets, lines[1][48:], lines[2][:24])
	}
	for _, secret := range secrets {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("a private key came out:\n%s", text[max(0, at-300):min(len(text), at+100)])
		}
	}
}
