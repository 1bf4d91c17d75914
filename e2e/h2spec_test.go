// An HTTP listener passes as many tests of h2spec as a server of Go's standard
// library.

package e2e

import (
	"net"
	"regexp"
	"strconv"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

var h2specSummary = regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`)

// h2spec runs all its tests against a server and returns their number and how
// many passed.
func h2spec(t testing.TB, address string) (tests, passed int, report string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(address)
	r := command(t, need(t, "h2spec"), "-h", host, "-p", port, "-t", "-k", "-o", "1")
	m := h2specSummary.FindStringSubmatch(r.stdout)
	if m == nil {
		t.Fatalf("h2spec: %v", r)
	}
	tests, _ = strconv.Atoi(m[1])
	passed, _ = strconv.Atoi(m[2])
	return tests, passed, r.stdout
}

func TestH2spec(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	open := a.serverConfig(t)
	open.ClientAuth = 0
	_, stock, _ := h2spec(t, serveHTTPS(t, open, respondsWith("hello")))

	g := startGateway(t)
	secure := listener("secure", protocolHTTP, "web")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", a.server),
		upstream("web", a.settings(), serveHTTPS(t, a.serverConfig(t), respondsWith("hello"))), secure)
	tests, passed, report := h2spec(t, g.address("secure"))
	t.Logf("of %d tests %d pass, and %d with a server of the standard library", tests, passed, stock)
	if passed < stock {
		t.Errorf("of %d tests %d pass, but %d with a server of the standard library:\n%s", tests, passed, stock, report)
	}
}
