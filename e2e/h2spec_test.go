// An HTTP listener passes as many tests of h2spec as a server of Go's standard
// library.

package e2e

import (
	"encoding/xml"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// An h2specReport is a report of h2spec about some runs of all its tests.
type h2specReport struct {
	tests  int
	passed map[string]bool // tests that passed in one of the runs
	failed string          // the output about the tests that failed in the last run
}

// run runs all tests against a server. A test waits only a second for the server, so a stall
// of the machine makes it fail: a server passes a test if it passes in one of some runs. A
// stall may also end h2spec itself, without a report.
func (r *h2specReport) run(t testing.TB, address string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(address)
	file := filepath.Join(t.TempDir(), "report.xml")
	output := command(t, need(t, "h2spec"), "-h", host, "-p", port, "-t", "-k", "-o", "1", "-j", file)
	text, err := os.ReadFile(file)
	if err != nil {
		r.failed = output.String()
		return
	}
	var report struct {
		Suites []struct {
			Cases []struct {
				Package string `xml:"package,attr"`
				Name    string `xml:"classname,attr"`
				Content string `xml:",innerxml"` // a failure, an error, or nothing
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &report); err != nil {
		t.Fatalf("h2spec: %v, %s", err, text)
	}
	if r.passed == nil {
		r.passed = map[string]bool{}
	}
	r.tests = 0
	for _, s := range report.Suites {
		for _, c := range s.Cases {
			if r.tests++; strings.TrimSpace(c.Content) == "" {
				r.passed[c.Package+" "+c.Name] = true
			}
		}
	}
	_, r.failed, _ = strings.Cut(output.stdout, "\nFailures:")
}

func TestH2spec(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	open := a.serverConfig(t)
	open.ClientAuth = 0
	var stock, ours h2specReport
	address := serveHTTPS(t, open, respondsWith("hello"))
	for range 5 {
		if stock.run(t, address); len(stock.passed) >= 100 {
			break
		}
	}
	if len(stock.passed) < 100 {
		t.Fatalf("only %d of %d tests pass with a server of the standard library:\n%s", len(stock.passed), stock.tests, stock.failed)
	}

	g := startGateway(t)
	secure := listener("secure", protocolHTTP, "web")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", a.server),
		upstream("web", a.settings(), serveHTTPS(t, a.serverConfig(t), respondsWith("hello"))), secure)
	for range 5 {
		if ours.run(t, g.address("secure")); len(ours.passed) >= len(stock.passed) {
			break
		}
	}
	t.Logf("of %d tests %d pass, and %d with a server of the standard library", ours.tests, len(ours.passed), len(stock.passed))
	if len(ours.passed) < len(stock.passed) {
		t.Errorf("of %d tests %d pass, but %d with a server of the standard library:\n%s", ours.tests, len(ours.passed), len(stock.passed), ours.failed)
	}
}
