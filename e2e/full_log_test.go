// If the reader of the log stops, traffic, admin calls and the stop of the
// gateway continue. The gateway reports the number of dropped lines.

package e2e

import (
	"bufio"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestLogReaderThatStopsReadingBlocksNothing(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	raw := serveConns(t, a.serverConfig(t), echo)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	g := newGateway(t, shortDir(t)+"/data", "--ops", "127.0.0.1:0")
	g.stderr = w
	g.run(program(t), g.serveArgs()...)
	_ = w.Close()

	// Read the log only until the gateway is ready.
	var ops string
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if m := opsUp.FindStringSubmatch(line); m != nil {
			ops = "http://" + m[1]
		}
		if strings.Contains(line, `"@message":"ready"`) {
			break
		}
	}
	g.serveBoth(a, raw, raw)
	before := dial(t, g.address("raw"))
	if err := pingPong(before, "before"); err != nil {
		t.Fatal(err)
	}

	dropped := regexp.MustCompile(`(?m)^drawbridge_gateway_log_dropped [1-9]`)
	long := "/" + strings.Repeat("a", 200)
	eventually(t, "lines of the log are dropped", func() bool {
		for range 200 { // each call writes a line
			if _, err := g.admin.GetListener(longContext(t), &adminv1.GetListenerRequest{Name: "raw"}); err != nil {
				t.Fatalf("an admin call while the log is full: %v", err)
			}
		}
		tryGet(t, oneRequestClient, "http://"+g.address("web")+long)
		_, metrics := get(t, ops+"/metrics")
		return dropped.MatchString(metrics)
	})

	if err := pingPong(before, "still here"); err != nil {
		t.Errorf("a connection from before: %v", err)
	}
	if answer, err := exchange(t, g.address("raw"), "new"); err != nil || answer != "new" {
		t.Errorf("a new connection: %q, %v", answer, err)
	}
	g.apply(listener("another", protocolTCP, "raw"))
	_ = before.Close()
	eventually(t, "the descriptors of all connections are free", func() bool { return g.getStatus().GetDescriptors().GetClients() == 0 })
	g.signal(syscall.SIGTERM)
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}
