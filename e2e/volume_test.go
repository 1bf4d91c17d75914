// A gateway that does not run as root can keep its state on a volume mounted by
// Kubernetes. Its sockets admit exactly the intended group.

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

func TestGatewayOfAnOrdinaryUserOnAMountedVolume(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run programs as other users")
	}
	setpriv, curl := need(t, "setpriv"), need(t, "curl")
	const owner, member, stranger, group = 10001, 10002, 10003, 20001

	top := shortDir(t)
	volume, run, binary := filepath.Join(top, "volume"), filepath.Join(top, "run"), filepath.Join(top, "drawbridge")
	content, err := os.ReadFile(program(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Chmod(top, 0o755), os.WriteFile(binary, content, 0o755), os.Chmod(binary, 0o755),
		os.Mkdir(volume, 0o700), os.Chown(volume, 0, group), os.Chmod(volume, 0o770|os.ModeSetgid),
		os.Mkdir(run, 0o755), os.Chmod(run, 0o755), os.Chown(run, owner, owner),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	as := func(user int, groups string, args ...string) []string {
		return append([]string{fmt.Sprint("--reuid=", user), fmt.Sprint("--regid=", user), groups}, args...)
	}
	members, none := fmt.Sprint("--groups=", group), "--clear-groups"

	own := filepath.Join(volume, "drawbridge")
	if r := command(t, setpriv, as(owner, members, binary, "serve", "--data-dir", volume)...); r.code == 0 || !strings.Contains(r.stderr, "--data-dir "+own) {
		t.Errorf("on the volume itself: %s", r)
	}
	g := newGateway(t, own, "--admin-socket-mode", "0660", "--admin-socket-group", fmt.Sprint(group))
	g.socket = filepath.Join(run, "admin.sock")
	for range 2 { // the first start creates the directory, and the second finds it
		g.run(setpriv, as(owner, members, append([]string{binary}, g.serveArgs()...)...)...)
		g.awaitReady()
		web := listener("web", protocolHTTP, "")
		web.Address = "unix:" + filepath.Join(run, "web.sock")
		web.Unix = &adminv1.UnixOptions{Mode: "0660", Group: fmt.Sprint(group)}
		g.apply(web, &adminv1.Route{Name: "hello", Listeners: []string{"web"}, Action: &adminv1.Route_Respond{Respond: &adminv1.Respond{Body: "hello"}}})

		status := []string{binary, "status", "--admin", "unix:" + g.socket}
		ask := []string{curl, "-sS", "--unix-socket", filepath.Join(run, "web.sock"), "http://web/"}
		if r := command(t, setpriv, as(member, members, status...)...); r.code != 0 || !strings.Contains(r.stdout, "1 listener") {
			t.Errorf("a member of the group asks for the status: %s", r)
		}
		if r := command(t, setpriv, as(member, members, ask...)...); r.stdout != "hello" {
			t.Errorf("a member of the group connects to the listener: %s", r)
		}
		if r := command(t, setpriv, as(stranger, none, status...)...); r.code == 0 || !strings.Contains(r.stderr, "permission denied") {
			t.Errorf("a stranger asks for the status: %s", r)
		}
		if r := command(t, setpriv, as(stranger, none, ask...)...); r.code == 0 || !strings.Contains(r.stderr, "Permission denied") && !strings.Contains(r.stderr, "Couldn't connect") && !strings.Contains(r.stderr, "Failed to connect") {
			t.Errorf("a stranger connects to the listener: %s", r)
		}
		if r := command(t, setpriv, as(member, members, "cat", storeFile(t, own))...); r.code == 0 {
			t.Error("a member of the group reads the state")
		}
		g.stop()
	}
}

// /readyz, the health service and GetStatus follow --ready-requires: by default
// a listener that is down is reported and does not make the gateway unready.
func TestReadinessFollowsItsFlag(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(shortDir(t), "data")
	start := func(requires string) (*gateway, func() (int, string)) {
		g := launch(t, dir, "--ops", "127.0.0.1:0", "--ready-requires", requires)
		ops := g.logged(opsUp)
		eventually(t, "the start is complete", func() bool { return g.out.contains(`"@message":"ready"`) })
		return g, func() (int, string) { return get(t, "http://"+ops+"/readyz") }
	}
	expect := func(what string, g *gateway, readyz func() (int, string), want int, reason string) {
		t.Helper()
		code, body := readyz()
		health, err := g.health.Check(longContext(t), &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		serving := health.GetStatus() == healthv1.HealthCheckResponse_SERVING
		if code != want || !strings.Contains(body, reason) || g.getStatus().GetReady() != (want == 200) || serving != (want == 200) {
			t.Errorf("%s: /readyz %d %q, status %v, health %v", what, code, body, g.getStatus().GetReady(), health.GetStatus())
		}
	}
	g, readyz := start("revision")
	expect("without a revision", g, readyz, 503, "nothing was applied yet")
	web := listener("web", protocolHTTP, "")
	web.Address = "unix:" + filepath.Join(shortDir(t), "web.sock")
	g.apply(web)
	expect("with a revision", g, readyz, 200, "")
	g.stop()

	holder := startGateway(t)
	holder.apply(web)
	for requires, want := range map[string]int{"restored": 200, "listeners": 503} {
		g, readyz := start(requires)
		reason := ""
		if want == 503 {
			reason = "web"
		}
		expect(requires+" with an address that is taken", g, readyz, want, reason)
		g.stop()
	}
	holder.stop()
	g, readyz = start("listeners")
	expect("listeners with an address that is free", g, readyz, 200, "")
	g.stop()
}
