// A full disk refuses the write and nothing else; when file descriptors run out
// clients wait or are closed, and when there are some again all is as before.

package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestFullDiskRefusesTheWriteAlone(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	web := serveHTTPS(t, a.serverConfig(t), says("web"))
	// No file may grow past this, which is what a full disk is like.
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
		_, err = g.admin.PutRoute(patient(t), &adminv1.PutRouteRequest{Route: large(acknowledged)})
	}
	acknowledged--
	if status.Code(err) != codes.Unavailable {
		t.Fatalf("after %d writes the disk is full: %v", acknowledged, err)
	}
	before, err := g.admin.GetConfig(patient(t), &adminv1.GetConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if code, body := get(t, "http://"+g.address("web")+"/"); code != 200 || body != "web" {
		t.Errorf("traffic: %d %q", code, body)
	}
	// What was refused is not live, and what was acknowledged is.
	if code, body := get(t, fmt.Sprintf("http://%s/%d/", g.address("web"), acknowledged)); code != 200 || body != "web" {
		t.Errorf("the route that was refused answers %d with %d bytes", code, len(body))
	}
	if code, body := get(t, fmt.Sprintf("http://%s/%d/", g.address("web"), acknowledged-1)); code != 200 || len(body) != 60_000 {
		t.Errorf("the last route that was acknowledged answers %d with %d bytes", code, len(body))
	}
	g.stop()

	g = g.restart() // without the limit
	after, err := g.admin.GetConfig(patient(t), &adminv1.GetConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(before, after) {
		t.Errorf("at revision %d there were %d resources, after a restart at %d there are %d",
			before.GetRevision(), len(before.GetResources()), after.GetRevision(), len(after.GetResources()))
	}
	g.apply(large(acknowledged))
}

func TestFileDescriptorsRunOut(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	raw := serveConns(t, a.serverConfig(t), echo)
	g := startGatewayWithin(t, "-n 100")
	g.serveBoth(a, raw, raw)
	address := g.address("raw")

	first := dial(t, address)
	if err := pingPong(first, "first"); err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for range 150 {
		conn, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			continue // the queue of connections not accepted yet is full
		}
		conns = append(conns, conn)
		_, _ = io.WriteString(conn, "one of too many")
	}
	if err := pingPong(first, "still there"); err != nil {
		t.Errorf("the first of all connections: %v", err)
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	eventually(t, "the next client is served", func() bool {
		answer, err := exchange(t, address, "next")
		return err == nil && answer == "next"
	})
	if err := pingPong(first, "to the end"); err != nil {
		t.Errorf("the first of all connections: %v", err)
	}
	_ = first.SetDeadline(time.Now().Add(patience))
	g.apply(listener("another", protocolTCP, "raw"))
}
