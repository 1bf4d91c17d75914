package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline bounds every wait of a test. Only a fault reaches it.
const deadline = time.Minute

// testGateway is a running gateway and its log.
type testGateway struct {
	*Gateway
	t    *testing.T
	dir  string
	log  *logtest.Buffer
	stop func() error // ends Run and returns its error
}

// start runs a gateway on dir, which may be "" for a new one.
func start(t *testing.T, dir string, change ...func(*Options)) *testGateway {
	t.Helper()
	if dir == "" {
		dir = filepath.Join(t.TempDir(), "data")
	}
	g := &testGateway{t: t, dir: dir, log: &logtest.Buffer{}}
	o := Options{
		DataDir: dir, FileRoots: []string{os.TempDir()}, Ops: "127.0.0.1:0", DrainTimeout: deadline, Version: "test",
		AdminSocket: filepath.Join(shortDir(t), "admin.sock"),
		Logger:      hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: g.log, JSONFormat: true}),
	}
	for _, c := range change {
		c(&o)
	}
	var err error
	if g.Gateway, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	eventually(t, "the gateway serves", g.serving.Load)
	g.stop = sync.OnceValue(func() error { cancel(); return <-done })
	if g.fleet != nil {
		_ = g.fleet.Sync(t.Context()) // the gateway may have begun to serve first; fails if the test has stopped etcd
	}
	t.Cleanup(func() {
		if err := g.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", g.log.String())
		}
	})
	return g
}

// shortDir returns a directory whose path leaves room for a unix socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// settle waits until the edit that made the live revision has ended: its listeners are bound,
// and watchers know of it.
func (g *testGateway) settle() {
	g.writer.mu.Lock()
	defer g.writer.mu.Unlock()
}

func (g *testGateway) apply(e store.Edit) *store.Result {
	g.t.Helper()
	r, err := g.Apply(context.Background(), e)
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

func (g *testGateway) put(rs ...store.Resource) *store.Result {
	g.t.Helper()
	return g.apply(store.Edit{Puts: puts(rs...)})
}

func puts(rs ...store.Resource) []store.Put {
	var out []store.Put
	for i, r := range rs {
		out = append(out, store.Put{Path: invalid.Path("resources").Index(i), Resource: r})
	}
	return out
}

// listener returns the status of the first listener with the name.
func (g *testGateway) listener(name string) *adminv1.ListenerStatus {
	g.t.Helper()
	for _, l := range g.Status().GetListeners() {
		if l.GetName() == name {
			return l
		}
	}
	g.t.Fatalf("there is no listener %q", name)
	return nil
}

// address returns the listener's bound address.
func (g *testGateway) address(name string) string {
	g.t.Helper()
	l := g.listener(name)
	if l.GetState() != adminv1.ListenerState_LISTENER_STATE_UP {
		g.t.Fatalf("listener %q is %v: %s", name, l.GetState(), l.GetReason())
	}
	return l.GetBoundAddress()
}

// echo starts a TLS echo server that requires client certificates, and returns
// its address.
func echo(t *testing.T, ca *certstest.CA, issued *pki.Issued) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certstest.TLS(t, issued)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, func(c net.Conn) {
		io.Copy(c, c)
		c.(*tls.Conn).CloseWrite()
	})
	return l.Addr().String()
}

// serve accepts connections until the test ends, and waits for its goroutines.
func serve(t *testing.T, l net.Listener, handle func(net.Conn)) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				handle(c)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

// bridgeTo returns the resources of a bridge to an mTLS endpoint.
func bridgeTo(t *testing.T, ca *certstest.CA, endpoint string) []store.Resource {
	t.Helper()
	client := ca.Client(t, "client")
	return []store.Resource{
		&adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_Pem{Pem: string(ca.TrustPEM())}},
		inlineCertificate("client", client),
		&adminv1.Upstream{Name: "up", Endpoints: []*adminv1.Endpoint{{Address: endpoint}},
			Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{Certificate: "client", TrustBundles: []string{"corp"}, VerifyName: "up.example"}}},
	}
}

// inlineCertificate returns a certificate with its key in the message.
func inlineCertificate(name string, issued *pki.Issued) *adminv1.Certificate {
	return &adminv1.Certificate{Name: name, Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{
		CertificateChain: string(issued.ChainPEM), PrivateKey: string(issued.KeyPEM)}}}
}

func plainUpstream(name, address string) *adminv1.Upstream {
	return &adminv1.Upstream{Name: name, Endpoints: []*adminv1.Endpoint{{Address: address}},
		Transport: &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}}
}

func tcpListener(name, address string) *adminv1.Listener {
	return &adminv1.Listener{Name: name, Address: address, Protocol: adminv1.Protocol_PROTOCOL_TCP, Upstream: "up"}
}

func httpListener(name, address string) *adminv1.Listener {
	return &adminv1.Listener{Name: name, Address: address, Protocol: adminv1.Protocol_PROTOCOL_HTTP, Upstream: "up"}
}

// stream is a client's connection that sends a line and reads it back.
type stream struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, address string) *stream {
	t.Helper()
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(deadline))
	return &stream{c, bufio.NewReader(c)}
}

func (s *stream) echo(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(s, line+"\n"); err != nil {
		t.Fatal(err)
	}
	got, err := s.r.ReadString('\n')
	if err != nil || got != line+"\n" {
		t.Fatalf("sent %q, got %q (%v)", line, got, err)
	}
}

// get returns the code and body of a request.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	c := &http.Client{Timeout: deadline, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// eventually waits until ok returns true.
func eventually(t *testing.T, condition string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did not happen: %s", condition)
		}
	}
}
