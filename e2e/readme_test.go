// Every shell block of the README's tour works as described. The test runs them
// in order with a real nginx and the built binary.

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestReadmeTour(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"nginx", "curl", "jq", "bash"} {
		need(t, tool)
	}
	page := readPage(t, "../README.md")
	_, tour, found := strings.Cut(page, "## A five-minute tour")
	if !found {
		t.Fatal("README.md has no tour")
	}
	tour, _, _ = strings.Cut(tour, "\n## ")
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(tour, -1)
	if len(blocks) < 5 {
		t.Fatalf("the tour has %d shell blocks", len(blocks))
	}
	var script strings.Builder
	script.WriteString("set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true; nginx -p \"$PWD\" -e error.log -c nginx.conf -s quit 2>/dev/null || true' EXIT\n")
	for _, block := range blocks {
		script.WriteString(block[1])
	}

	// The page's ports may be in use on this machine.
	addresses := freeAddresses(t, 2)
	ports := strings.NewReplacer("127.0.0.1:8080", addresses[0], "127.0.0.1:9443", addresses[1])
	bin := t.TempDir()
	for name, target := range map[string]string{"drawbridge": program(t), "grpcurl": grpcurlPath(t)} {
		if err := os.Symlink(target, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	sh := exec.CommandContext(longContext(t), "bash", "-c", ports.Replace(script.String()))
	sh.Dir = t.TempDir()
	sh.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "TMPDIR="+t.TempDir())
	out, err := sh.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	serial := regexp.MustCompile(`from CN=gateway, serial ([0-9A-F]+)`)
	serials := serial.FindAllStringSubmatch(string(out), -1)
	if len(serials) != 5 {
		t.Fatalf("nginx answered %d times, want 5:\n%s", len(serials), out)
	}
	if serials[0][1] != serials[1][1] || serials[1][1] == serials[2][1] || serials[2][1] != serials[4][1] {
		t.Errorf("the serials are %v: want the same before the rotation, and another after it", serials)
	}
	for _, want := range []string{
		"Revision 1 is live.",
		`{"revision":"2","changes":[{"kind":"KIND_ROUTE","name":"api","action":"CHANGE_ACTION_UPDATED"}],"impact":{}}`,
		"FAILED  NAME_MISMATCH",
		`→ set tls.verify_name to "backend.internal" if that is the upstream`,
		"Error: pay.yaml:3: document 1 (Upstream backend): endpoints[0]: NAME_MISMATCH: the certificate is for backend.internal; we verify pay.internal",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
}
