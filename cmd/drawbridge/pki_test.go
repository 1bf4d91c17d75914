package main

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
)

func TestACAOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	sh := shell{env: map[string]string{"DRAWBRIDGE_DIR": dir}}
	pki := func(args ...string) result { return sh.run(t.Context(), append([]string{"pki"}, args...)...) }

	pki("issue", "web").want(t, exit.Failure, "holds no CA; `drawbridge pki init` makes one")
	pki("show").want(t, exit.Failure, "no such file")
	pki("init", "--name", "Corp CA", "--intermediate", "--lifetime", "730d").want(t, exit.OK, "Made a CA in "+dir, "ca.pem")
	pki("init").want(t, exit.Conflict, "--force replaces it")

	pki("issue", "web", "--dns", "web.internal", "--dns", "*.web.internal", "--ip", "10.0.0.7").want(t, exit.OK, "for a server")
	pki("issue", "gateway", "--lifetime", "90d").want(t, exit.OK, "for a client")
	pki("issue", "node", "--server", "--client", "--uri", "spiffe://corp/node", "--key-type", "ed25519").want(t, exit.OK, "for a server and client")
	pki("issue", "bare", "--server").want(t, exit.Failure, "needs a DNS name")
	pki("issue", "../up", "--client").want(t, exit.Failure, "cannot name a certificate")
	pki("issue", "web", "--client").want(t, exit.Conflict, "web-key.pem exists already; --force replaces it")

	pki("show").want(t, exit.OK, "CN=Corp CA intermediate", "DNS:web.internal,DNS:*.web.internal,IP:10.0.0.7", "server,client", "Ed25519")
	pki("show", filepath.Join(dir, "web.pem")).want(t, exit.OK, "Subject      CN=web\n", "serverAuth", "CN=Corp CA intermediate\n", "days left)")
	pki("show", filepath.Join(dir, "web-key.pem")).want(t, exit.Invalid, "holds no certificate")

	before, err := os.ReadFile(filepath.Join(dir, "web.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pki("issue", "web", "--dns", "web.internal", "--force").want(t, exit.OK)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "web.pem"), filepath.Join(dir, "web-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, "web.pem")); string(after) == string(before) || len(pair.Certificate) != 2 {
		t.Errorf("not replaced, or without its intermediate: %d certificates", len(pair.Certificate))
	}

	out := filepath.Join(t.TempDir(), "new", "dir")
	pki("issue", "far", "--client", "--out-dir", out).want(t, exit.OK, out)
	if info, err := os.Stat(filepath.Join(out, "far-key.pem")); err != nil || info.Mode() != 0o600 {
		t.Errorf("key file: %v, %v", info, err)
	}

	// A new root without an intermediate is not loaded with the old intermediate.
	pki("init", "--force", "--name", "Second CA").want(t, exit.OK)
	pki("issue", "late", "--client").want(t, exit.OK)
	pki("show", filepath.Join(dir, "late.pem")).want(t, exit.OK, "Issuer       CN=Second CA\n")
	if left, _ := filepath.Glob(filepath.Join(dir, ".new-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
