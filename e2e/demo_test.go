// The demonstration works as the README shows it: a whole bridge in one
// command, a first request through each listener, and a clean end.

package e2e

import (
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
			t.Errorf("it does not show %q: %s", want, r)
		}
	}
	if said := r.stdout + r.stderr; strings.Contains(said, "PRIVATE KEY") || strings.Contains(said, "panic") {
		t.Errorf("it printed what it should not: %s", r)
	}
}

func TestDemoRunsUntilInterrupted(t *testing.T) {
	t.Parallel()
	p := start(t, program(t), "demo")
	eventually(t, "the demonstration shows its commands", func() bool { return p.done() || p.out.contains("grpcurl") })
	p.signal(syscall.SIGINT)
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d after an interrupt:\n%s", code, tail(p.out.String()))
	}
}
