// Files are read only below the gateway's file roots. Any other path is
// rejected with the same sentence, whether or not the file exists.

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestFilesOutsideTheRootsAreNotRead(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	outside, root := t.TempDir(), t.TempDir()
	secret := writeFile(t, filepath.Join(outside, "ca.pem"), a.ca.RootPEM())
	writeFile(t, filepath.Join(outside, "secret"), []byte("a secret of the machine"))
	inside := writeFile(t, filepath.Join(root, "ca.pem"), a.ca.RootPEM())
	if err := os.Symlink(secret, filepath.Join(root, "link.pem")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "dir")); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, "--file-root", root)

	put := func(path string) error {
		_, err := g.admin.PutTrustBundle(longContext(t), &adminv1.PutTrustBundleRequest{
			TrustBundle: &adminv1.TrustBundle{Name: "ca", Source: &adminv1.TrustBundle_File{File: path}},
		})
		return err
	}
	sentences := map[string]bool{}
	for _, path := range []string{
		secret, filepath.Join(outside, "secret"), filepath.Join(outside, "nothing"), outside, "/etc/passwd", "/etc/shadow", "/proc/self/environ", "/dev/zero",
		filepath.Join(root, "link.pem"), filepath.Join(root, "dir", "ca.pem"), filepath.Join(root, "dir", "nothing"),
		root + "/../" + filepath.Base(outside) + "/ca.pem", root + "x/ca.pem", filepath.Join(g.dir, "drawbridge.db"), "/nowhere/at/all",
	} {
		err := put(path)
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, want InvalidArgument", path, err)
		}
		sentences[strings.ReplaceAll(status.Convert(err).Message(), path, "PATH")] = true
		for _, leaked := range []string{"no such file", "a secret", "root:", "permission"} {
			if strings.Contains(err.Error(), leaked) {
				t.Errorf("%s: the error reveals %q: %v", path, leaked, err)
			}
		}
	}
	if len(sentences) != 1 {
		t.Errorf("errors differ: %v", sentences)
	}
	if err := put(inside); err != nil {
		t.Errorf("below the root: %v", err)
	}
	for what, put := range map[string]func(ctx context.Context) error{
		"a certificate's chain": func(ctx context.Context) error {
			_, err := g.admin.PutCertificate(ctx, &adminv1.PutCertificateRequest{Certificate: &adminv1.Certificate{Name: "c", Source: &adminv1.Certificate_Files{
				Files: &adminv1.CertificateFiles{CertificatePath: secret, PrivateKeyPath: inside},
			}}})
			return err
		},
		"a certificate's key": func(ctx context.Context) error {
			_, err := g.admin.PutCertificate(ctx, &adminv1.PutCertificateRequest{Certificate: &adminv1.Certificate{Name: "c", Source: &adminv1.Certificate_Files{
				Files: &adminv1.CertificateFiles{CertificatePath: inside, PrivateKeyPath: secret},
			}}})
			return err
		},
		"a passphrase": func(ctx context.Context) error {
			_, err := g.admin.PutCertificate(ctx, &adminv1.PutCertificateRequest{Certificate: &adminv1.Certificate{Name: "c", Source: &adminv1.Certificate_Files{
				Files: &adminv1.CertificateFiles{CertificatePath: inside, PassphrasePath: filepath.Join(outside, "secret")},
			}}})
			return err
		},
		"a revocation list": func(ctx context.Context) error {
			_, err := g.admin.PutTrustBundle(ctx, &adminv1.PutTrustBundleRequest{TrustBundle: withCRLFile(trustBundle("crl", a.ca), secret)})
			return err
		},
	} {
		if err := put(longContext(t)); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "--file-root") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A valid path that later leads outside the roots is rejected too, and the live
// material stays.
func TestALinkChangedToLeadOutsideIsRejected(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	outside, root := t.TempDir(), t.TempDir()
	path := writeFile(t, filepath.Join(root, "ca.pem"), a.ca.RootPEM())
	secret := writeFile(t, filepath.Join(outside, "ca.pem"), other.ca.RootPEM())
	web := serveHTTPS(t, a.serverConfig(t), respondsWith("reached"))
	g := startGateway(t, "--file-root", root)
	g.apply(
		&adminv1.TrustBundle{Name: "ca", Source: &adminv1.TrustBundle_File{File: path}}, certificate("client", a.client),
		upstream("web", a.settings(), web), listener("web", protocolHTTP, "web"),
	)
	events := g.watchEvents()
	if err := os.Symlink(secret, path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	e := events.await(adminv1.EventType_EVENT_TYPE_FILE_REFUSED)
	if e.GetName() != "ca" || strings.Contains(e.GetMessage(), outside) {
		t.Errorf("the event is %v", e)
	}
	if code, body := get(t, "http://"+g.address("web")+"/"); code != 200 || body != "reached" {
		t.Errorf("the live material: %d %q", code, body)
	}
}

// If a restart changes the roots, resources with files outside them stay down.
func TestUsersOfFilesOutsideNewRootsAreDown(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	before, after := t.TempDir(), t.TempDir()
	path := writeFile(t, filepath.Join(before, "ca.pem"), a.ca.RootPEM())
	web := serveHTTPS(t, a.serverConfig(t), respondsWith("reached"))
	g := startGateway(t, "--file-root", before)
	g.apply(
		&adminv1.TrustBundle{Name: "ca", Source: &adminv1.TrustBundle_File{File: path}}, certificate("client", a.client),
		upstream("web", a.settings(), web), listener("web", protocolHTTP, "web"),
	)
	if code, body := get(t, "http://"+g.address("web")+"/"); code != 200 || body != "reached" {
		t.Fatalf("%d %q", code, body)
	}
	g.stop()
	g = startGatewayOn(t, g.dir, "--file-root", after)
	if code, body := get(t, "http://"+g.address("web")+"/"); code != 503 {
		t.Errorf("without its CA: %d %q", code, body)
	}
	problems := g.getStatus().GetProblems()
	if len(problems) == 0 || !strings.Contains(problems[0].GetReason(), "--file-root") || g.upstream("web").GetReason() != adminv1.Reason_REASON_LOCAL_CONFIG {
		t.Errorf("problems are %v, the upstream is %v", problems, g.upstream("web"))
	}
	// The program does not start if a root is not a directory.
	r := command(t, program(t), "serve", "--data-dir", filepath.Join(shortDir(t), "data"), "--file-root", path)
	if r.code == 0 || !strings.Contains(r.stderr, "--file-root") {
		t.Errorf("a root that is a file: %s", r)
	}
}
