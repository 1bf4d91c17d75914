package l4_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A gate is a running Server.
type gate struct {
	*l4.Server
	network, address string
	served           chan error // the result of Serve
}

// listen returns a listener on a kernel-chosen address.
func listen(t testing.TB, network string) net.Listener {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// open starts a Server. The end of the test cuts its connections.
func open(t testing.TB, network string, o l4.Options) *gate {
	t.Helper()
	ln := listen(t, network)
	g := &gate{Server: l4.New(o), network: network, address: ln.Addr().String(), served: make(chan error, 1)}
	go func() { g.served <- g.Serve(ln) }()
	t.Cleanup(func() {
		g.Shutdown(canceled())
		if err := <-g.served; err != l4.ErrServerClosed {
			t.Errorf("Serve returned %v", err)
		}
	})
	return g
}

// serve starts a Server with one table.
func serve(t testing.TB, table *l4.Table) *gate {
	return open(t, "tcp", l4.Options{Listener: "test", Table: func() *l4.Table { return table }})
}

// to returns the Target of a single upstream.
func to(u *upstream.Upstream) *l4.Target {
	return &l4.Target{Upstreams: upstream.NewSplit([]upstream.Weighted[*upstream.Upstream]{{Value: u, Weight: 1}})}
}

// group returns an upstream with the given endpoints.
func group(endpoints ...upstream.EndpointOptions) *upstream.Upstream {
	return upstream.New(upstream.Options{Name: "group", ConnectTimeout: time.Minute, HandshakeTimeout: time.Minute, Endpoints: endpoints})
}

// plain describes a plaintext endpoint.
func plain(ln net.Listener) upstream.EndpointOptions {
	return upstream.EndpointOptions{Network: ln.Addr().Network(), Address: ln.Addr().String()}
}

// over describes a TLS endpoint.
func over(t testing.TB, ln net.Listener, o certs.ClientOptions) upstream.EndpointOptions {
	t.Helper()
	c, err := certs.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	e := plain(ln)
	e.Stream = c
	return e
}

// A peer is the test's end of a connection.
type peer = splicetest.Peer

// How a stream ended for its reader.
const (
	clean     = splicetest.Clean
	truncated = splicetest.Truncated
	reset     = splicetest.Reset
)

// dial connects to the gate, over TLS if config is not nil.
func (g *gate) dial(t testing.TB, config *tls.Config) *peer {
	t.Helper()
	raw, err := net.Dial(g.network, g.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return splicetest.NewPeer(raw, splicetest.Client(config))
}

// wantRefused connects and expects a reset, which may arrive before connect returns.
func (g *gate) wantRefused(t testing.TB) {
	t.Helper()
	raw, err := net.Dial(g.network, g.address)
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	splicetest.NewPeer(raw, nil).WantEnd(t, "", reset)
}

// accept waits for the gate to connect.
func accept(t testing.TB, ln net.Listener, config *tls.Config) *peer {
	t.Helper()
	raw, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return splicetest.NewPeer(raw, splicetest.Server(config))
}

// wantNoConnection fails t if a client has connected to ln.
func wantNoConnection(t testing.TB, ln net.Listener) {
	t.Helper()
	// Accept would not look for a connection after its deadline.
	if err := ln.(*net.TCPListener).SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if conn, err := ln.Accept(); err == nil {
		conn.Close()
		t.Error("a connection reached the upstream")
	}
}

// echo accepts connections until the test ends, and echoes each.
func echo(t testing.TB, ln net.Listener, config *tls.Config) {
	var conns sync.WaitGroup
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer raw.Close()
				p := splicetest.NewPeer(raw, splicetest.Server(config))
				if _, err := io.Copy(p.Conn, p.Conn); err == nil {
					p.CloseWrite()
				}
			})
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done; conns.Wait() })
}

// eventually polls a condition until it holds.
func eventually(t testing.TB, condition string, ok func() bool) {
	t.Helper()
	splicetest.Eventually(t, condition, ok)
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// debugLog returns a Logger that writes all levels to b, as JSON.
func debugLog(b *logtest.Buffer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: b, JSONFormat: true})
}

// A pki issues the certificates of a test.
type pki struct{ ca *certstest.CA }

func newPKI(t testing.TB) pki { return pki{certstest.NewCA(t)} }

// listener returns the gate's TLS configuration for names.
func (p pki) listener(t testing.TB, names ...string) *certs.Servers {
	t.Helper()
	s, err := certs.NewServer(certs.ServerOptions{
		Certificates: []*certs.Certificate{certstest.Certificate(t, p.ca.Server(t, names...))},
	})
	if err != nil {
		t.Fatal(err)
	}
	return certs.NewServers(s)
}

// client returns the settings of a client of the gate.
func (p pki) client(name string) *tls.Config {
	return &tls.Config{ServerName: name, RootCAs: p.ca.Pool()}
}

// server returns the settings of an upstream.
func (p pki) server(t testing.TB, names ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, p.ca.Server(t, names...))}}
}

// upstream returns the gate's TLS options for an upstream.
func (p pki) upstream(t testing.TB, name string) certs.ClientOptions {
	return certs.ClientOptions{ServerName: name, Trust: []*certs.TrustBundle{p.ca.Trust(t)}}
}
