// The npm library ws works through HTTP listeners, as client and as server:
// every message arrives, with pings, compression and the close code.

package e2e

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// startNode runs a script of testdata/ws with the library installed.
func startNode(t testing.TB, script string, args ...string) *process {
	t.Helper()
	path := need(t, "node")
	if err := exec.Command(path, "-e", "require('ws')").Run(); err != nil {
		missing(t, "node finds no library ws; `make e2e` installs it, and sets NODE_PATH")
	}
	return start(t, path, append([]string{filepath.Join("testdata", "ws", script)}, args...)...)
}

func TestTheLibraryWSAtBothEnds(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	files := map[string]string{}
	for name, data := range map[string][]byte{"server.pem": a.server.ChainPEM, "server.key": a.server.KeyPEM, "ca.pem": a.ca.RootPEM()} {
		files[name] = writeFile(t, filepath.Join(t.TempDir(), name), data)
	}
	server := startNode(t, "server.cjs", files["server.pem"], files["server.key"], files["ca.pem"])
	port := regexp.MustCompile(`port (\d+)`)
	eventually(t, "node listens", func() bool { return server.done() || port.MatchString(server.out.String()) })
	if server.done() {
		t.Fatalf("node ended:\n%s", server.out)
	}

	g := startGateway(t)
	secure := listener("secure", protocolHTTP, "node")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", a.server),
		upstream("node", a.settings(), "127.0.0.1:"+port.FindStringSubmatch(server.out.String())[1]),
		upstream("go", a.settings(), serveHTTPS(t, a.serverConfig(t), echoWebSocket)),
		listener("plain", protocolHTTP, "node"), secure, listener("to-go", protocolHTTP, "go"))

	// Messages pass through the gateway twice, with HTTP/2 in between.
	again := upstream("again", a.settings(), g.address("secure"))
	again.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_2}
	g.apply(again, listener("twice", protocolHTTP, "again"))

	for _, args := range [][]string{
		{"ws://" + g.address("plain") + "/chat"}, {"wss://" + g.address("secure") + "/chat", files["ca.pem"]}, {"ws://" + g.address("to-go") + "/chat"},
		{"ws://" + g.address("twice") + "/chat"},
	} {
		client := startNode(t, "client.cjs", args...)
		if code := client.wait(); code != 0 || !client.out.contains("206 messages came back") {
			t.Errorf("%s: exit code %d\n%s", args[0], code, client.out)
		}
	}
	eventually(t, "the server has logged every close", func() bool { return strings.Count(server.out.String(), "closed 4321 enough") == 3 })
	if server.out.contains("error") {
		t.Errorf("the server's output:\n%s", server.out)
	}
}
