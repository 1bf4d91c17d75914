// On SIGTERM the gateway reports that it is not ready, accepts no more
// connections, lets work in flight finish, and exits with 0. Work that does not
// finish is cut off after --drain-timeout.

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
)

// startGatewayWithOps starts a gateway that also serves probes and metrics, and
// returns their address.
func startGatewayWithOps(t *testing.T, args ...string) (*gateway, string) {
	t.Helper()
	return launchOn(t, func(ops string) []string { return append(args, "--ops", ops) })
}

func TestSIGTERMDrains(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	web := serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		_, _ = io.WriteString(w, "finished")
	})
	raw := serveConns(t, a.serverConfig(t), echo)
	g, ops := startGatewayWithOps(t, "--drain-timeout", "10m")
	g.serveBoth(a, web, raw)

	for _, probe := range []string{"healthz", "readyz"} {
		if code, body := get(t, "http://"+ops+"/"+probe); code != 200 {
			t.Errorf("/%s: %d %q", probe, code, body)
		}
	}
	stream := dial(t, g.address("raw"))
	if err := pingPong(stream, "before"); err != nil {
		t.Fatal(err)
	}
	addresses := []string{g.address("web"), g.address("raw")}
	answered := make(chan string, 1)
	go func() {
		code, body, err := tryGet(t, oneRequestClient, "http://"+addresses[0]+"/")
		answered <- fmt.Sprint(code, " ", body, " ", err)
	}()
	<-arrived

	g.signal(syscall.SIGTERM)
	eventually(t, "/readyz reports that the gateway stops", func() bool {
		code, _, err := tryGet(t, oneRequestClient, "http://"+ops+"/readyz")
		return err == nil && code == http.StatusServiceUnavailable
	})
	for _, address := range addresses {
		eventually(t, "no further connection is accepted at "+address, func() bool { return refuses(address) })
	}
	if err := pingPong(stream, "after"); err != nil {
		t.Errorf("the stream in flight: %v", err)
	}
	close(release)
	if got := <-answered; got != "200 finished <nil>" {
		t.Errorf("the request in flight: %s", got)
	}
	if g.done() {
		t.Error("the gateway did not wait for the stream in flight")
	}
	if err := stream.CloseWrite(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(stream); err != nil || len(rest) > 0 {
		t.Errorf("the stream in flight ended with %q, %v", rest, err)
	}
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestDrainTimeoutEndsTheDrain(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	raw := serveConns(t, a.serverConfig(t), echo)
	g := startGateway(t, "--drain-timeout", "200ms")
	g.serveBoth(a, raw, raw)
	stream := dial(t, g.address("raw"))
	if err := pingPong(stream, "before"); err != nil {
		t.Fatal(err)
	}
	g.signal(syscall.SIGTERM)
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	_ = stream.SetDeadline(time.Now().Add(testTimeout))
	if n, err := stream.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes of a stream whose gateway is gone", n)
	}
}

// serveBoth applies an HTTP listener "web" and a TCP listener "raw", each with
// an upstream of its name that demands a client certificate. No other test can
// take their addresses once they are free.
func (g *gateway) serveBoth(a *authority, webServer, rawServer string) {
	g.t.Helper()
	web, raw := listener("web", protocolHTTP, "web"), listener("raw", protocolTCP, "raw")
	web.Address, raw.Address = sockettest.Host()+":0", sockettest.Host()+":0"
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client),
		upstream("web", a.settings(), webServer), upstream("raw", a.settings(), rawServer), web, raw,
	)
}
