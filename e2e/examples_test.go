// The gateway accepts every example in deploy/examples. Each is applied to an
// empty gateway, first as a dry run, then for real.

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const examples = "../deploy/examples"

func TestExamplesApply(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(examples, "*.yaml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("examples are %v, %v", files, err)
	}
	a := newAuthority(t)
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"ca.pem": a.ca.RootPEM(), "trusted_ca_cert.crt": a.ca.RootPEM(),
		"client.pem": a.client.ChainPEM, "client.key": a.client.KeyPEM,
		"server.pem": a.server.ChainPEM, "server.key": a.server.KeyPEM,
	} {
		writeFile(t, filepath.Join(dir, name), data)
	}
	g := startGateway(t, "--file-root", dir)
	for _, file := range files {
		example, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// Only files and ports are replaced; they depend on the machine.
		text := regexp.MustCompile(`/etc/(nginx|drawbridge)/`).ReplaceAllString(string(example), dir+"/")
		text = regexp.MustCompile(`(?m)^address: .*$`).ReplaceAllString(text, "address: 127.0.0.1:0")
		own := writeFile(t, filepath.Join(dir, filepath.Base(file)), []byte(text))

		before := g.getStatus()
		if r := g.cli("apply", "--dry-run", "--prune", "-f", own); r.code != 0 {
			t.Errorf("%s, dry run: %s", file, r)
		}
		if now := g.getStatus(); now.GetRevision() != before.GetRevision() {
			t.Errorf("%s: a dry run made revision %d", file, now.GetRevision())
		}
		if r := g.cli("apply", "--prune", "-f", own); r.code != 0 {
			t.Errorf("%s: %s", file, r)
			continue
		}
		status := g.getStatus()
		if len(status.GetProblems()) != 0 {
			t.Errorf("%s: problems %v", file, status.GetProblems())
		}
		if got, want := int(status.GetCounts().GetUpstreams()), strings.Count(text, "kind: Upstream"); got != want {
			t.Errorf("%s: %d upstreams are live, want %d", file, got, want)
		}
		for _, l := range status.GetListeners() {
			if l.GetState() == adminv1.ListenerState_LISTENER_STATE_DOWN {
				t.Errorf("%s: listener %v", file, l)
			}
		}
	}
}
