package snapshot

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestUnusableTrustBundleBringsItsUsersDown(t *testing.T) {
	for name, content := range map[string]string{
		"a missing file": "",
		"an empty file":  "\n",
		"garbage":        "not a certificate",
		"cut off":        "-----BEGIN CERTIFICATE-----\nMIIB",
		"a wrong PEM":    "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
	} {
		t.Run(name, func(t *testing.T) {
			w, file := newTestbed(t), filepath.Join(t.TempDir(), "ca.pem")
			write := func(text string) {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(string(w.ca.TrustPEM()))
			front := listener("front", "127.0.0.1:1", tcp, "up")
			front.Tls = &adminv1.ServerTls{Certificates: []string{"s"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL, ClientTrustBundles: []string{"ca"}}
			web := listener("web", "127.0.0.1:2", httpP, "up")
			web.Tls = &adminv1.ServerTls{Certificates: []string{"s"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"ca"}}
			w.put(&adminv1.TrustBundle{Name: "ca", Source: &adminv1.TrustBundle_File{File: file}},
				files(t, t.TempDir(), "s", w.ca.Server(t, "localhost")),
				tlsUpstream("up", &adminv1.UpstreamTls{TrustBundles: []string{"ca"}}), front, web)
			if w.snap.TCP("front") == nil || w.snap.HTTP("web") == nil || len(w.snap.upstreams.Get("up").live.Endpoints()) != 1 {
				t.Fatal("not live with its trust")
			}

			if content == "" {
				os.Remove(file)
			} else {
				write(content)
			}
			w.snap = testCompiler().Restore(context.Background(), w.snap.State())
			if w.snap.TCP("front") != nil || w.snap.HTTP("web") != nil {
				t.Error("a listener without its clients' trust is open")
			}
			if len(w.snap.upstreams.Get("up").live.Endpoints()) != 0 {
				t.Error("an upstream without its trust takes traffic")
			}
			if n := len(w.snap.Problems()); n != 4 {
				t.Errorf("%d problems: %v", n, w.snap.Problems())
			}
		})
	}
}
