// A restart restores everything. A resource that can no longer be live is down
// with its reason, and all others are up.

package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/proto"
)

func TestRestartRestoresEverything(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	web := serveHTTPS(t, a.serverConfig(t), respondsWith("web"))
	raw := serveConns(t, a.serverConfig(t), echo)
	g := startGateway(t)
	g.serveBoth(a, web, raw)
	g.apply(forward("r", "web", "/r/", "web"))
	before, err := g.admin.GetConfig(longContext(t), &adminv1.GetConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		g.stop()
		g = g.restart()
		after, err := g.admin.GetConfig(longContext(t), &adminv1.GetConfigRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(before, after) {
			t.Errorf("the configuration was\n%v\nand after a restart is\n%v", before, after)
		}
		if code, body := get(t, "http://"+g.address("web")+"/r/"); code != 200 || body != "web" {
			t.Errorf("HTTP after a restart: %d %q", code, body)
		}
		if answer, err := exchange(t, g.address("raw"), "raw"); err != nil || answer != "raw" {
			t.Errorf("TCP after a restart: %q, %v", answer, err)
		}
	}
}

func TestStartWithResourcesThatCannotBeLive(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	web := serveHTTPS(t, a.serverConfig(t), respondsWith("web"))
	dir := t.TempDir()
	caFile := writeFile(t, filepath.Join(dir, "ca.pem"), a.ca.RootPEM())

	g := startGateway(t, "--file-root", dir)
	g.serveBoth(a, web, web)
	// A port that another program will take, and a file that will be deleted.
	fixed := listener("fixed", protocolHTTP, "web")
	fixed.Address = sockettest.Host() + ":0"
	g.apply(fixed)
	taken := g.address("fixed")
	g.remove(ref(adminv1.Kind_KIND_LISTENER, "fixed"))
	fixed.Address = taken
	g.apply(fixed,
		&adminv1.TrustBundle{Name: "file", Source: &adminv1.TrustBundle_File{File: caFile}},
		upstream("of-file", &adminv1.UpstreamTls{Certificate: "client", TrustBundles: []string{"file"}, ServerName: serverName}, web),
		listener("of-file", protocolHTTP, "of-file"),
	)
	if code, _ := get(t, "http://"+g.address("of-file")+"/"); code != 200 {
		t.Fatalf("with its file the upstream answers %d", code)
	}
	g.stop()
	thief, err := net.Listen("tcp", taken)
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	if err := os.Remove(caFile); err != nil {
		t.Fatal(err)
	}

	g = g.restart()
	if l := g.listener("fixed"); l.GetState() != adminv1.ListenerState_LISTENER_STATE_DOWN || !strings.Contains(l.GetReason(), "address already in use") {
		t.Errorf("the listener whose port is in use: %v", l)
	}
	if u := g.upstream("of-file"); !strings.Contains(u.GetMessage(), caFile) {
		t.Errorf("the upstream whose trust bundle is gone: %v", u)
	}
	problems := map[string]bool{}
	for _, p := range g.getStatus().GetProblems() {
		if p.GetReason() == "" {
			t.Errorf("a problem without a reason: %v", p)
		}
		problems[p.GetKind().String()+"/"+p.GetName()] = true
	}
	for _, want := range []string{"KIND_LISTENER/fixed", "KIND_TRUST_BUNDLE/file"} {
		if !problems[want] {
			t.Errorf("problems are %v, without %s", problems, want)
		}
	}
	// The resource refuses requests; there is no fallback.
	if l := g.listener("of-file"); l.GetState() == adminv1.ListenerState_LISTENER_STATE_UP {
		if code, body := get(t, "http://"+l.GetBoundAddress()+"/"); code < 500 {
			t.Errorf("an upstream without its trust bundle answers %d %q", code, body)
		}
	}
	// All other resources are up.
	if code, body := get(t, "http://"+g.address("web")+"/"); code != 200 || body != "web" {
		t.Errorf("the rest: %d %q", code, body)
	}

	// Once the port and the file are back, the same write brings both up.
	_ = thief.Close()
	writeFile(t, caFile, a.ca.RootPEM())
	g.stop()
	g = g.restart()
	for _, name := range []string{"fixed", "of-file"} {
		if code, body := get(t, "http://"+g.address(name)+"/"); code != 200 || body != "web" {
			t.Errorf("%s, after the repair: %d %q", name, code, body)
		}
	}
}
