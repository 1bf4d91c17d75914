// If the disk is full, only writes fail. If file descriptors run out, clients
// wait but the operator does not. Once some are free again, everything works as
// before.

package e2e

import (
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestFullDiskFailsOnlyWrites(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	web := serveHTTPS(t, a.serverConfig(t), respondsWith("web"))
	// A limit on file size acts like a full disk.
	g := startGatewayWithin(t, "-f 512")
	g.serveBoth(a, web, web)

	large := func(i int) *adminv1.Route {
		r := forward(fmt.Sprint("r", i), "web", fmt.Sprintf("/%d/", i), "")
		r.Action = &adminv1.Route_Respond{Respond: &adminv1.Respond{Body: strings.Repeat("x", 60_000)}}
		return r
	}
	var acknowledged int
	var err error
	for ; err == nil && acknowledged < 100; acknowledged++ {
		_, err = g.admin.PutRoute(longContext(t), &adminv1.PutRouteRequest{Route: large(acknowledged)})
	}
	acknowledged--
	if status.Code(err) != codes.Unavailable {
		t.Fatalf("after %d writes the disk is full: %v", acknowledged, err)
	}
	before, err := g.admin.GetConfig(longContext(t), &adminv1.GetConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if code, body := get(t, "http://"+g.address("web")+"/"); code != 200 || body != "web" {
		t.Errorf("traffic: %d %q", code, body)
	}
	// The failed write is not live; the acknowledged writes are.
	if code, body := get(t, fmt.Sprintf("http://%s/%d/", g.address("web"), acknowledged)); code != 200 || body != "web" {
		t.Errorf("the route of the failed write answers %d with %d bytes", code, len(body))
	}
	if code, body := get(t, fmt.Sprintf("http://%s/%d/", g.address("web"), acknowledged-1)); code != 200 || len(body) != 60_000 {
		t.Errorf("the last acknowledged route answers %d with %d bytes", code, len(body))
	}
	g.stop()

	g = g.restart() // without the limit
	after, err := g.admin.GetConfig(longContext(t), &adminv1.GetConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(before, after) {
		t.Errorf("at revision %d there were %d resources, after a restart at %d there are %d",
			before.GetRevision(), len(before.GetResources()), after.GetRevision(), len(after.GetResources()))
	}
	g.apply(large(acknowledged))
}

// opsUp matches the log line with the address of --ops.
var opsUp = regexp.MustCompile(`"@message":"ops up".*?"address":"([^"]+)"`)

func TestFileDescriptorsRunOut(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	raw := serveConns(t, a.serverConfig(t), echo)
	g := startGatewayWithin(t, "-n 100", "--ops", "127.0.0.1:0")
	g.serveBoth(a, raw, raw)
	address := g.address("raw")
	ops := "http://" + g.logged(opsUp)

	first := dial(t, address)
	if err := pingPong(first, "first"); err != nil {
		t.Fatal(err)
	}
	const flood = 150
	type answer struct {
		conn net.Conn
		err  error
	}
	served := make(chan answer, flood)
	for range flood {
		conn := dial(t, address) // this connection waits in the kernel's queue until the gateway accepts it
		go func() { served <- answer{conn, pingPong(conn, "one of too many")} }()
	}
	eventually(t, "the listener has paused", func() bool { return g.getStatus().GetDescriptors().GetPausedListeners() > 0 })

	// Open connections still work, and so do new connections of the operator.
	if err := pingPong(first, "still there"); err != nil {
		t.Errorf("the first of all connections: %v", err)
	}
	for range 10 {
		for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
			if code, body := get(t, ops+path); code != 200 {
				t.Errorf("%s: %d %q", path, code, body)
			}
		}
		if r := g.cli("status"); r.code != 0 || !strings.Contains(r.stdout, "NOT ACCEPTING") {
			t.Errorf("status: %v", r)
		}
		g.apply(forward("r", "web", "/r", "web")) // a write
		g.remove(&adminv1.ResourceRef{Kind: adminv1.Kind_KIND_ROUTE, Name: "r"})
	}
	g.apply(listener("another", protocolTCP, "raw"))
	d := g.getStatus().GetDescriptors()
	if d.GetLimit() != 100 || d.GetClients() < 10 || d.GetClients() > 45 || d.GetPauses() == 0 {
		t.Errorf("descriptors: %v", d)
	}
	eventually(t, "the log reports it", func() bool { return g.out.contains("no file descriptors for further clients") })

	// Some clients disconnect, and waiting clients take their places. The gateway
	// serves all of them and drops no accepted connection.
	for i := range flood {
		a := <-served
		if a.err != nil {
			t.Fatalf("client %d: %v", i, a.err)
		}
		_ = a.conn.Close()
	}
	if err := pingPong(first, "to the end"); err != nil {
		t.Errorf("the first of all connections: %v", err)
	}
	eventually(t, "all listeners accept", func() bool { return g.getStatus().GetDescriptors().GetPausedListeners() == 0 })
	for _, name := range []string{"raw", "another"} {
		if answer, err := exchange(t, g.address(name), "next"); err != nil || answer != "next" {
			t.Errorf("%s: %q, %v", name, answer, err)
		}
	}
	if e := g.upstream("raw").GetEndpoints()[0]; len(e.GetFailures()) != 0 {
		t.Errorf("failures: %v", e.GetFailures())
	}
}
