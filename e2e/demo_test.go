// The demo works as the README shows it: a whole bridge with one command, a
// first request through each listener, and a clean end.

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

func TestDemoOnce(t *testing.T) {
	t.Parallel()
	r := command(t, program(t), "demo", "--once")
	if r.code != 0 {
		t.Fatalf("drawbridge demo --once: %s", r)
	}
	for _, want := range []string{"$ curl http://127.0.0.1:", "web-1: your client certificate is", "web-2: your client certificate is", "echo: your client certificate is"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("the output lacks %q: %s", want, r)
		}
	}
	if said := r.stdout + r.stderr; strings.Contains(said, "PRIVATE KEY") || strings.Contains(said, "panic") {
		t.Errorf("the output contains an error: %s", r)
	}
}

// The commands that the demo prints work when pasted.
func TestDemoCommandsWorkUntilInterrupted(t *testing.T) {
	t.Parallel()
	p := start(t, program(t), "demo")
	eventually(t, "the demo prints its commands", func() bool { return p.done() || p.out.contains("Ctrl-C") })
	_, commands, _ := strings.Cut(p.out.String(), "Try it from another terminal:")
	commands, _, _ = strings.Cut(commands, "Ctrl-C")

	var script strings.Builder
	ran := map[string]int{}
	for line := range strings.Lines(commands) {
		line = strings.TrimSpace(line)
		word, _, _ := strings.Cut(line, " ")
		switch name := filepath.Base(word); {
		case line == "" || word == "#":
			continue
		case name == "echo": // the command pipes to nc, which has several variants
			continue
		case name == "grpcurl":
			line = strings.Replace(line, word, grpcurlPath(t), 1)
			fallthrough
		default:
			ran[name]++
		}
		fmt.Fprintln(&script, line)
	}
	if ran["curl"] < 3 || ran[filepath.Base(program(t))] < 4 || ran["grpcurl"] < 3 {
		t.Fatalf("the demo prints the commands %v:\n%s", ran, p.out)
	}
	need(t, "curl")
	r := command(t, "sh", "-eux", "-c", script.String())
	if r.code != 0 {
		t.Errorf("pasted: %s", r)
	}
	serials := map[string]bool{}
	for _, m := range regexp.MustCompile(`serial ([0-9a-f]+)`).FindAllStringSubmatch(r.stdout, -1) {
		serials[m[1]] = true
	}
	if len(serials) != 2 {
		t.Errorf("the upstreams saw the serials %v, want one before the rotation and one after:\n%s", serials, r)
	}
	p.signal(syscall.SIGINT)
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d after an interrupt:\n%s", code, tail(p.out.String()))
	}
	if _, dir, ok := strings.Cut(p.out.String(), "removes "); ok {
		dir, _, _ = strings.Cut(dir, "\n")
		if _, err := os.Stat(strings.TrimSuffix(dir, ".")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the demo leaves %s behind: %v", dir, err)
		}
	}
}
