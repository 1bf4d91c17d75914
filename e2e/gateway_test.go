package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
)

// A gateway is a running Drawbridge with its own data directory.
type gateway struct {
	*process
	t      testing.TB
	dir    string // data directory
	socket string // admin socket
	args   []string
	stderr *os.File // the standard error; nil: out

	admin       adminv1.AdminServiceClient
	status      adminv1.StatusServiceClient
	diagnostics adminv1.DiagnosticsServiceClient
	health      healthv1.HealthClient
}

// startGateway starts the program on a new data directory and waits until it is
// ready. Further arguments go to serve.
func startGateway(t testing.TB, args ...string) *gateway {
	t.Helper()
	return startGatewayOn(t, filepath.Join(shortDir(t), "data"), args...)
}

// startGatewayOn starts the program on an existing data directory.
func startGatewayOn(t testing.TB, dir string, args ...string) *gateway {
	t.Helper()
	g := launch(t, dir, args...)
	g.awaitReady()
	return g
}

// startGatewayWithin starts a gateway on a new data directory under a limit of
// the shell's ulimit, such as "-n 100", and waits until it is ready. Further
// arguments go to serve.
func startGatewayWithin(t testing.TB, limit string, args ...string) *gateway {
	t.Helper()
	g := newGateway(t, filepath.Join(shortDir(t), "data"), args...)
	g.run("sh", append([]string{"-c", "ulimit " + limit + ` && exec "$@"`, "sh", program(t)}, g.serveArgs()...)...)
	g.awaitReady()
	return g
}

// launch starts the program without waiting for it.
func launch(t testing.TB, dir string, args ...string) *gateway {
	t.Helper()
	g := newGateway(t, dir, args...)
	g.run(program(t), g.serveArgs()...)
	return g
}

func newGateway(t testing.TB, dir string, args ...string) *gateway {
	return &gateway{t: t, dir: dir, socket: filepath.Join(filepath.Dir(dir), "admin.sock"), args: args}
}

func (g *gateway) run(name string, args ...string) {
	t := g.t
	t.Helper()
	g.runs(startTo(t, g.stderr, name, args...))
}

// runs sets the process of the gateway.
func (g *gateway) runs(p *process) {
	t := g.t
	t.Helper()
	g.process = p
	t.Cleanup(g.inspect)

	conn := dialAdmin(t, "unix:"+g.socket, insecure.NewCredentials())
	g.admin = adminv1.NewAdminServiceClient(conn)
	g.status = adminv1.NewStatusServiceClient(conn)
	g.diagnostics = adminv1.NewDiagnosticsServiceClient(conn)
	g.health = healthv1.NewHealthClient(conn)
}

func (g *gateway) serveArgs() []string {
	return append([]string{"serve", "--data-dir", g.dir, "--admin", "unix:" + g.socket,
		"--log-level", "trace", "--log-format", "json"}, g.args...)
}

func dialAdmin(t testing.TB, target string, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.6, MaxDelay: 200 * time.Millisecond},
		MinConnectTimeout: 5 * time.Second,
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// awaitReady waits until the gateway is ready, or fails the test.
func (g *gateway) awaitReady() {
	g.t.Helper()
	if !g.becomesReady() {
		g.t.Fatalf("the gateway ended: %v\n%s", g.err, tail(g.out.String()))
	}
}

// becomesReady waits until the gateway is ready or has ended.
func (g *gateway) becomesReady() bool {
	g.t.Helper()
	eventually(g.t, "the gateway is ready", func() bool {
		ctx, cancel := context.WithTimeout(g.t.Context(), time.Second)
		defer cancel()
		resp, err := g.health.Check(ctx, &healthv1.HealthCheckRequest{}, grpc.WaitForReady(!g.done()))
		return g.done() || err == nil && resp.GetStatus() == healthv1.HealthCheckResponse_SERVING
	})
	return !g.done()
}

// launchOn starts a gateway with an address that the kernel cannot choose;
// flags gets the address. If another program takes the address first, launchOn
// tries another.
func launchOn(t testing.TB, flags func(address string) []string) (*gateway, string) {
	t.Helper()
	for range 5 {
		address := freeAddresses(t, 1)[0]
		g := launch(t, filepath.Join(shortDir(t), "data"), flags(address)...)
		if g.becomesReady() {
			return g, address
		}
		if !g.out.contains("address already in use") {
			t.Fatalf("the gateway ended: %v\n%s", g.err, tail(g.out.String()))
		}
	}
	t.Fatal("no free port in five attempts")
	return nil, ""
}

// restart starts the program again on the same data directory. The old process
// must have ended.
func (g *gateway) restart() *gateway {
	g.t.Helper()
	if !g.done() {
		g.t.Fatal("the gateway still runs: it cannot be restarted")
	}
	return startGatewayOn(g.t, g.dir, g.args...)
}

// stop ends the gateway with SIGTERM and checks its exit code.
func (g *gateway) stop() {
	g.t.Helper()
	g.signal(syscall.SIGTERM)
	if code := g.wait(); code != 0 {
		g.t.Errorf("exit code %d after SIGTERM:\n%s", code, tail(g.out.String()))
	}
}

// inspect checks the promises that every gateway keeps in every test, and shows
// its log if the test failed.
func (g *gateway) inspect() {
	log := g.out.String()
	for _, bad := range []string{"PRIVATE KEY", "panic:", "fatal error:", "DATA RACE", "goroutine 1 ["} {
		if at := strings.Index(log, bad); at >= 0 {
			g.t.Errorf("the gateway printed %q:\n%s", bad, tail(log[max(0, at-200):min(len(log), at+3000)]))
		}
	}
	if g.t.Failed() {
		var changes strings.Builder // omit reads, because tests poll while they wait
		for line := range strings.Lines(log) {
			if !strings.Contains(line, `"@message":"read"`) {
				changes.WriteString(line)
			}
		}
		g.t.Logf("the gateway's log:\n%s", tail(changes.String()))
	}
}

// apply applies resources, or fails the test.
func (g *gateway) apply(resources ...proto.Message) *adminv1.Change {
	g.t.Helper()
	resp, err := g.admin.Apply(longContext(g.t), &adminv1.ApplyRequest{Resources: wrap(g.t, resources)})
	if err != nil {
		g.t.Fatalf("Apply: %v", err)
	}
	return resp.GetChange()
}

// remove deletes resources in one revision.
func (g *gateway) remove(refs ...*adminv1.ResourceRef) {
	g.t.Helper()
	req := &adminv1.ApplyRequest{}
	for _, r := range refs {
		req.Deletes = append(req.Deletes, &adminv1.ResourceDelete{Kind: r.GetKind(), Name: r.GetName()})
	}
	if _, err := g.admin.Apply(longContext(g.t), req); err != nil {
		g.t.Fatalf("Apply: %v", err)
	}
}

func wrap(t testing.TB, resources []proto.Message) []*adminv1.Resource {
	t.Helper()
	var all []*adminv1.Resource
	for _, r := range resources {
		one := &adminv1.Resource{}
		switch r := r.(type) {
		case *adminv1.Listener:
			one.Kind = &adminv1.Resource_Listener{Listener: r}
		case *adminv1.Route:
			one.Kind = &adminv1.Resource_Route{Route: r}
		case *adminv1.Upstream:
			one.Kind = &adminv1.Resource_Upstream{Upstream: r}
		case *adminv1.Certificate:
			one.Kind = &adminv1.Resource_Certificate{Certificate: r}
		case *adminv1.TrustBundle:
			one.Kind = &adminv1.Resource_TrustBundle{TrustBundle: r}
		default:
			t.Fatalf("%T is not a resource", r)
		}
		all = append(all, one)
	}
	return all
}

// logged waits for a line of the log that matches and returns its first submatch.
// The log is written in the background, so a line may come after the event.
func (g *gateway) logged(line *regexp.Regexp) string {
	g.t.Helper()
	var found []string
	eventually(g.t, "the log has "+line.String(), func() bool {
		found = line.FindStringSubmatch(g.out.String())
		return found != nil
	})
	return found[1]
}

func (g *gateway) getStatus() *adminv1.GetStatusResponse {
	g.t.Helper()
	s, err := g.status.GetStatus(longContext(g.t), &adminv1.GetStatusRequest{})
	if err != nil {
		g.t.Fatalf("GetStatus: %v", err)
	}
	return s
}

// listener returns the status of a listener, or nil.
func (g *gateway) listener(name string) *adminv1.ListenerStatus {
	g.t.Helper()
	for _, l := range g.getStatus().GetListeners() {
		if l.GetName() == name {
			return l
		}
	}
	return nil
}

// address returns the address of a listener, which must be up.
func (g *gateway) address(name string) string {
	g.t.Helper()
	l := g.listener(name)
	if l.GetState() != adminv1.ListenerState_LISTENER_STATE_UP {
		g.t.Fatalf("listener %s is not up: %v", name, l)
	}
	return l.GetBoundAddress()
}

func (g *gateway) upstream(name string) *adminv1.UpstreamStatus {
	g.t.Helper()
	resp, err := g.status.ListUpstreams(longContext(g.t), &adminv1.ListUpstreamStatusesRequest{})
	if err != nil {
		g.t.Fatalf("ListUpstreams: %v", err)
	}
	for _, u := range resp.GetUpstreams() {
		if u.GetName() == name {
			return u
		}
	}
	g.t.Fatalf("no upstream %s in the status", name)
	return nil
}

// cli runs the command line against this gateway.
func (g *gateway) cli(args ...string) result {
	g.t.Helper()
	return command(g.t, program(g.t), append(args, "--admin", "unix:"+g.socket)...)
}

// storeFile returns the path of the file that holds the desired state.
func storeFile(t testing.TB, dir string) string {
	t.Helper()
	var largest string
	var size int64
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && info.Size() > size {
			largest, size = filepath.Join(dir, e.Name()), info.Size()
		}
	}
	if largest == "" {
		t.Fatalf("no store in %s: %v", dir, fmt.Sprint(entries))
	}
	return largest
}
