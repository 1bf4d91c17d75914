// The gateway never reveals a private key, a passphrase or an archive with a
// key: neither in answers, errors, probes or events, nor in the log at its most
// verbose level, nor in the command line's output.

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
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

func TestPrivateKeysAreNeverRevealed(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	second, archived, locked := clientCert(t, a.ca, "second"), clientCert(t, a.ca, "archived"), clientCert(t, a.ca, "locked")
	const passphrase = "correct-horse-battery-staple"
	p12, encrypted := archive(t, archived, passphrase), encryptedKey(t, locked, passphrase)
	web := serveHTTPS(t, a.serverConfig(t), respondsWith("web"))
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
	ctx := longContext(t)
	watch, err := g.admin.WatchConfig(ctx, &adminv1.WatchConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	events := g.watchEvents()
	following := start(t, program(t), "watch", "-o", "json", "--admin", "unix:"+g.socket)
	eventually(t, "drawbridge watch prints", func() bool { return following.out.contains("{") })
	watched := func(until int64) {
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

	// Write the password of an egress proxy, in accepted and in refused writes.
	for i, address := range []string{"127.0.0.1:1", "127.0.0.1:2", "not an address"} {
		behind := upstream("behind", a.settings(), "127.0.0.1:1")
		behind.Via = &adminv1.Via{Kind: &adminv1.Via_Socks5{Socks5: &adminv1.Socks5{Address: address, Credentials: &adminv1.ProxyCredentials{Username: "user", Password: passphrase}}}}
		for _, dryRun := range []bool{true, false} {
			m, err := g.admin.PutUpstream(ctx, &adminv1.PutUpstreamRequest{Upstream: behind, Options: &adminv1.WriteOptions{DryRun: dryRun}})
			if note(m, err); (err == nil) != (i < 2) {
				t.Errorf("a proxy at %s: %v", address, err)
			}
		}
	}

	// Write archives and encrypted keys, inline and in files.
	inArchive := func(name string, data []byte, passphrase string) *adminv1.Certificate {
		return &adminv1.Certificate{Name: name, Source: &adminv1.Certificate_Pkcs12{Pkcs12: &adminv1.CertificatePkcs12{Data: data, Passphrase: passphrase}}}
	}
	withPassphrase := func(name, chain, key, passphrase string) *adminv1.Certificate {
		return &adminv1.Certificate{Name: name, Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{CertificateChain: chain, PrivateKey: key, Passphrase: passphrase}}}
	}
	inFiles := func(name, chain, key, passphrase string) *adminv1.Certificate {
		return &adminv1.Certificate{Name: name, Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{CertificatePath: chain, PrivateKeyPath: key, PassphrasePath: passphrase}}}
	}
	archiveFile := writeFile(t, filepath.Join(dir, "a.p12"), p12)
	lockedFile := writeFile(t, filepath.Join(dir, "l.key"), encrypted)
	lockedChain := writeFile(t, filepath.Join(dir, "l.pem"), locked.ChainPEM)
	passphraseFile := writeFile(t, filepath.Join(dir, "passphrase"), []byte(passphrase+"\n"))
	for _, c := range []*adminv1.Certificate{
		inArchive("archived", p12, passphrase),
		withPassphrase("locked", string(locked.ChainPEM), string(encrypted), passphrase),
		inFiles("archived-file", archiveFile, "", passphraseFile),
		inFiles("locked-file", lockedChain, lockedFile, passphraseFile),
		inArchive("archived", nil, ""), // the archive as stored
		withPassphrase("locked", string(locked.ChainPEM), "", ""),
	} {
		for _, dryRun := range []bool{true, false} {
			if err := put(c, dryRun); err != nil {
				t.Error(err)
			}
		}
	}

	// Write keys to the wrong fields, and keys that do not match.
	key := string(a.client.KeyPEM)
	for what, c := range map[string]*adminv1.Certificate{
		"of another chain": certificate("wrong", &pki.Issued{ChainPEM: a.client.ChainPEM, KeyPEM: a.server.KeyPEM}),
		"as the chain":     certificate("wrong", &pki.Issued{ChainPEM: a.client.KeyPEM, KeyPEM: a.client.KeyPEM}),
		"truncated":        certificate("wrong", &pki.Issued{ChainPEM: a.client.ChainPEM, KeyPEM: a.client.KeyPEM[:len(key)/2]}),
		"after garbage":    certificate("wrong", &pki.Issued{ChainPEM: a.client.ChainPEM, KeyPEM: append([]byte("rubbish "), key...)}),
		"as the name":      certificate(key, a.client),
		"beside its chain": certificate("wrong", &pki.Issued{ChainPEM: append([]byte(key), a.client.ChainPEM...), KeyPEM: a.client.KeyPEM}),
		"as a path":        inFiles("wrong", key, key, key),
		"as a passphrase":  inArchive("wrong", p12, key),
		"as an archive":    inArchive("wrong", []byte(key), passphrase),

		"with a wrong passphrase":               withPassphrase("wrong", string(locked.ChainPEM), string(encrypted), passphrase+"!"),
		"without its passphrase":                withPassphrase("wrong", string(locked.ChainPEM), string(encrypted), ""),
		"encrypted, of another chain":           withPassphrase("wrong", string(second.ChainPEM), string(encrypted), passphrase),
		"in an archive with a wrong passphrase": inArchive("wrong", p12, passphrase+"!"),
		"in a truncated archive":                inArchive("wrong", p12[:len(p12)/2], passphrase),
		"in a file without its passphrase":      inFiles("wrong", lockedChain, lockedFile, ""),
		"in a file with a wrong passphrase":     inFiles("wrong", lockedChain, lockedFile, certFile),
		"instead of its passphrase":             inFiles("wrong", lockedChain, passphraseFile, lockedFile),
		"after the path of a passphrase":        inFiles("wrong", archiveFile, "", "/"+passphrase),
		"named as a passphrase":                 inArchive(passphrase, p12, passphrase+"!"),
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

	// Request diagnostics for upstreams that work and for upstreams that fail.
	stranger := clientCert(t, newCA(t, "another root"), "stranger")
	note(g.apply(certificate("stranger", stranger),
		upstream("refused", &adminv1.UpstreamTls{Certificate: "stranger", TrustBundles: []string{"ca"}, ServerName: serverName}, web), listener("refused", protocolHTTP, "refused")), nil)
	_, _ = get(t, "http://"+g.address("refused")+"/")
	for _, name := range []string{"web", "refused", "missing"} {
		m, err := g.diagnostics.ProbeUpstream(ctx, &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Name{Name: name}})
		note(m, err)
	}
	for _, of := range []string{"client", "stranger", "locked", "archived", "archived-file", "wrong", key} {
		settings := a.settings()
		settings.Certificate = of
		m, err := g.diagnostics.ProbeUpstream(ctx, &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Upstream{Upstream: upstream("other", settings, web)}})
		note(m, err)
	}
	required, err := g.admin.PutCertificate(ctx, &adminv1.PutCertificateRequest{
		Certificate: certificate("client", stranger), Options: &adminv1.WriteOptions{RequireProbe: adminv1.RequireProbe_REQUIRE_PROBE_ALL},
	})
	if err == nil {
		t.Error("a certificate that the upstream rejects was accepted")
	}
	note(required, err)
	if err != nil {
		note(status.Convert(err).Proto(), nil)
	}
	explained, err := g.diagnostics.ExplainRoute(ctx, &adminv1.ExplainRouteRequest{Listener: "web"})
	note(explained, err)

	// Files that become invalid.
	writeFile(t, certFile, a.client.KeyPEM)
	writeFile(t, lockedChain, []byte(passphrase))
	writeFile(t, passphraseFile, encrypted)
	for refused := map[string]bool{}; len(refused) < 3; {
		refused[events.await(adminv1.EventType_EVENT_TYPE_FILE_REFUSED).GetName()] = true
	}
	writeFile(t, certFile, a.client.ChainPEM)
	writeFile(t, lockedChain, locked.ChainPEM)
	writeFile(t, passphraseFile, []byte(passphrase))
	for _, e := range events.all {
		note(e, nil)
	}

	_, _ = get(t, "http://"+g.address("web")+"/")
	watched(g.getStatus().GetRevision())
	one, err := g.admin.GetCertificate(ctx, &adminv1.GetCertificateRequest{Name: "client"})
	note(one, err)
	list, err := g.admin.ListCertificates(ctx, &adminv1.ListCertificatesRequest{})
	note(list, err)
	all, err := g.admin.GetConfig(ctx, &adminv1.GetConfigRequest{})
	note(all, err)
	used, err := g.status.ListCertificates(ctx, &adminv1.ListCertificatesInUseRequest{})
	note(used, err)
	ups, err := g.status.ListUpstreams(ctx, &adminv1.ListUpstreamStatusesRequest{})
	note(ups, err)
	note(g.getStatus(), nil)

	config := writeFile(t, filepath.Join(dir, "bridge.yaml"), []byte("kind: Certificate\nname: client\nfiles: {certificatePath: c.pem, privateKeyPath: c.key}\n"))
	inline := writeFile(t, filepath.Join(dir, "inline.yaml"), fmt.Appendf(nil,
		"kind: Certificate\nname: inline\npem: {certificateChain: %s, privateKey: %s, privateKye: %s}\n", quote(a.server.ChainPEM), quote(a.client.KeyPEM), quote(a.client.KeyPEM)))
	inlineArchive := writeFile(t, filepath.Join(dir, "archive.yaml"), fmt.Appendf(nil,
		"kind: Certificate\nname: inline\npkcs12: {data: %q, passphrase: %s, passphrasePath: %s}\n", base64.StdEncoding.EncodeToString(p12), passphrase, passphrase))
	for _, args := range [][]string{
		{"probe", "web"}, {"probe", "web", "-o", "json"}, {"probe", "refused"}, {"probe", "refused", "-o", "yaml"}, {"explain", "web"}, {"explain", "web", "-o", "json"},
		{"get", "certificate", "archived", "-o", "yaml"}, {"get", "certificate", "locked", "-o", "json"}, {"get", "certificate", "locked-file"},
		{"status", "-o", "json"}, {"apply", "-f", inlineArchive}, {"apply", "-f", archiveFile}, {"apply", "-f", lockedFile}, {"drain", "web"},
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
	following.wait()
	seen.WriteString(following.out.String())
	seen.WriteString(g.out.String())

	if len(seen.String()) < 10_000 || !strings.Contains(seen.String(), "BEGIN CERTIFICATE") {
		t.Errorf("the test saw too little output to be meaningful: %d bytes", len(seen.String()))
	}
	expectNoKey(t, seen.String(), a.client, a.server, second, archived, locked, stranger)
	for what, secret := range map[string]string{"a passphrase": passphrase, "an archive": base64.StdEncoding.EncodeToString(p12)[:60], "an encrypted key": strings.Split(string(encrypted), "\n")[2]} {
		if strings.Contains(seen.String(), secret) {
			t.Errorf("%s was revealed", what)
		}
	}
}

// expectNoKey checks that a text contains no private key in any encoding.
func expectNoKey(t *testing.T, text string, keys ...*pki.Issued) {
	t.Helper()
	secrets := []string{"PRIVATE KEY"}
	for _, k := range keys {
		// In PKCS #8, bytes 36 to 67 are the secret of a P-256 key; the rest is
		// public and also in the certificate. A line of PEM is 48 bytes.
		lines := strings.Split(string(k.KeyPEM), "\n")
		if lines[0] != "-----BEGIN PRIVATE KEY-----" || len(lines[1]) != 64 {
			t.Fatal("the test does not know this kind of key")
		}
		secrets = append(secrets, lines[1][48:], lines[2][:24])
	}
	for _, secret := range secrets {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("a private key was revealed:\n%s", text[max(0, at-300):min(len(text), at+100)])
		}
	}
}
