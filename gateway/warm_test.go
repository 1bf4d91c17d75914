package gateway

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A countingServer is a TLS echo server that counts its clients by name.
type countingServer struct {
	address string

	mu    sync.Mutex
	ever  int
	names map[net.Conn]string // client names of open connections
}

func newCountingServer(t *testing.T, ca *certstest.CA, issued *pki.Issued) *countingServer {
	b := &countingServer{names: map[net.Conn]string{}}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certstest.TLS(t, issued)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.address = l.Addr().String()
	serve(t, l, func(c net.Conn) {
		b.mu.Lock()
		b.ever++
		b.mu.Unlock()
		if c.(*tls.Conn).Handshake() != nil {
			return
		}
		b.mu.Lock()
		b.names[c] = c.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName
		b.mu.Unlock()
		io.Copy(c, c)
		b.mu.Lock()
		delete(b.names, c)
		b.mu.Unlock()
	})
	return b
}

// connections returns the names of connected clients, and how many have ever
// connected.
func (b *countingServer) connections() (names string, ever int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, n := range b.names {
		all = append(all, n)
	}
	return strings.Join(all, " "), b.ever
}

// warm returns the warm connections of an upstream with one endpoint.
func (g *testGateway) warm(name string) *adminv1.WarmConnections {
	g.t.Helper()
	for _, u := range g.UpstreamStatuses() {
		if u.GetName() == name {
			return u.GetEndpoints()[0].GetWarm()
		}
	}
	g.t.Fatalf("there is no upstream %q", name)
	return nil
}

func TestWarmConnectionsFollowRevisions(t *testing.T) {
	ca := certstest.NewCA(t)
	up := newCountingServer(t, ca, ca.Server(t, "up.example"))
	g := start(t, "")
	resources := append(bridgeTo(t, ca, up.address), tcpListener("db", "127.0.0.1:0"))
	resources[2].(*adminv1.Upstream).Pool = &adminv1.Pool{Warm: 3}
	connected := func(want string) {
		t.Helper()
		eventually(t, "connected is "+want, func() bool { names, _ := up.connections(); return names == want })
	}

	// A dry run dials no endpoint.
	g.apply(store.Edit{Puts: puts(resources...), DryRun: true})
	taken := dial(t, g.OpsAddress()) // an address in use
	taken.Close()
	_, err := g.Apply(t.Context(), store.Edit{Puts: puts(append(resources, tcpListener("taken", g.OpsAddress()))...)})
	if err == nil {
		t.Fatal("an address in use was bound")
	}
	if _, ever := up.connections(); ever != 0 {
		t.Errorf("%d connections to an upstream that was not made live", ever)
	}

	g.put(resources...)
	connected("client client client")
	eventually(t, "all warm connections are ready", func() bool { return g.warm("up").GetReady() == 3 })
	if s := g.warm("up"); s.GetSize() != 3 || s.GetUsed() != 0 || s.GetMissed() != 0 {
		t.Errorf("%v", s)
	}
	client := dial(t, g.address("db"))
	client.echo(t, "at once")
	connected("client client client client")
	eventually(t, "the warm connection was replaced", func() bool { return g.warm("up").GetReady() == 3 && g.warm("up").GetUsed() == 1 })

	// A revision that changes another upstream keeps the warm connections.
	_, before := up.connections()
	other := resources[2].(*adminv1.Upstream)
	other = proto.Clone(other).(*adminv1.Upstream)
	other.Name, other.Pool = "other", nil
	g.put(other)
	if s := g.warm("up"); s.GetReady() != 3 || s.GetUsed() != 1 {
		t.Errorf("after an edit of another upstream: %v", s)
	}
	if _, ever := up.connections(); ever != before {
		t.Errorf("%d connections were made for an edit of another upstream", ever-before)
	}
	if g.warm("other") != nil {
		t.Errorf("an upstream without pool.warm has %v", g.warm("other"))
	}

	// A rotation replaces the warm connections, but not the connection in use.
	renewed := ca.Client(t, "renewed")
	g.put(inlineCertificate("client", renewed))
	eventually(t, "the rotated certificate is in use", func() bool {
		names, _ := up.connections()
		return len(names) == len("client renewed renewed renewed") && strings.Count(names, "renewed") == 3
	})
	client.echo(t, "still there")
	eventually(t, "the warm connections with the rotated certificate are ready", func() bool { return g.warm("up").GetReady() == 3 })

	// Draining a client certificate closes idle connections at once.
	_, before = up.connections()
	if n, err := g.DrainConnections("up", "", deadline); err != nil || n != 4 {
		t.Errorf("%d connections drain, %v", n, err)
	}
	eventually(t, "the warm connections were replaced", func() bool { _, ever := up.connections(); return ever == before+3 && g.warm("up").GetReady() == 3 })

	// A deleted upstream has no warm connections.
	g.apply(store.Edit{Deletes: []store.Delete{
		{Kind: adminv1.Kind_KIND_LISTENER, Name: "db"}, {Kind: adminv1.Kind_KIND_UPSTREAM, Name: "up"},
	}})
	client.Close()
	connected("")
}

func TestAStoppedGatewayHasNoWarmConnections(t *testing.T) {
	ca := certstest.NewCA(t)
	up := newCountingServer(t, ca, ca.Server(t, "up.example"))
	g := start(t, "")
	resources := append(bridgeTo(t, ca, up.address), tcpListener("db", "127.0.0.1:0"))
	resources[2].(*adminv1.Upstream).Pool = &adminv1.Pool{Warm: 2}
	g.put(resources...)
	eventually(t, "the warm connections are ready", func() bool { return g.warm("up").GetReady() == 2 })
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the warm connections are closed", func() bool { names, _ := up.connections(); return names == "" })

	g = start(t, g.dir) // a restart dials the warm connections again
	eventually(t, "the warm connections are ready again", func() bool { return g.warm("up").GetReady() == 2 })
}
