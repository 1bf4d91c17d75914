package splice_test

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// How a stream ended for its reader.
const (
	clean     = splicetest.Clean
	truncated = splicetest.Truncated
	reset     = splicetest.Reset
)

// A combination is the network and the TLS version on each side of a splice.
type combination struct {
	clientNetwork, upstreamNetwork string
	clientTLS, upstreamTLS         uint16 // 0: plaintext
}

func (c combination) String() string {
	name := func(network string, version uint16) string {
		if version == 0 {
			return network
		}
		return network + " " + tls.VersionName(version)
	}
	return name(c.clientNetwork, c.clientTLS) + " to " + name(c.upstreamNetwork, c.upstreamTLS)
}

// A bridge is a splice and the test's ends of its two connections.
type bridge struct {
	*splice.Splice
	client, upstream *splicetest.Peer

	clientSecrets, upstreamSecrets *splicetest.Secrets
	toUpstream, toClient           atomic.Uint64

	ended  chan struct{} // closed when the splice has ended
	result splice.Result // valid once ended is closed
}

// kinds are the kinds of Engine: with loops, with one loop, and with goroutines as on
// systems without epoll.
var kinds = []string{"loops", "one loop", "goroutines"}

// engineOf returns an Engine that the end of the test closes.
func engineOf(t testing.TB, kind string) *splice.Engine {
	t.Helper()
	e := splice.NewWaiting()
	if kind != "goroutines" {
		e = newEngine(t, map[string]int{"loops": 2, "one loop": 1}[kind])
	}
	t.Cleanup(e.Close)
	return e
}

// connect starts a splice of combination c. The end of the test cuts it.
func (c combination) connect(t testing.TB, e *splice.Engine, ca *certstest.CA, o splice.Options) *bridge {
	t.Helper()
	b := &bridge{ended: make(chan struct{})}
	client, upstream := connect(t, c.clientNetwork), connect(t, c.upstreamNetwork)
	b.client = splicetest.NewPeer(client.far, nil)
	b.upstream = splicetest.NewPeer(upstream.far, nil)
	clientNear, upstreamNear := net.Conn(client.near), net.Conn(upstream.near)
	handshakes := []func() error{}
	if c.clientTLS != 0 {
		far := clientTLS(ca, "gate.test")
		far.MaxVersion = c.clientTLS
		b.clientSecrets = splicetest.RecordSecrets(far)
		b.client = splicetest.NewPeer(client.far, splicetest.Client(far))
		near := tls.Server(client.near, serverTLS(t, ca, "gate.test"))
		clientNear = near
		handshakes = append(handshakes, near.Handshake, b.client.Handshake)
	}
	if c.upstreamTLS != 0 {
		far := serverTLS(t, ca, "upstream.test")
		far.MaxVersion = c.upstreamTLS
		b.upstreamSecrets = splicetest.RecordSecrets(far)
		b.upstream = splicetest.NewPeer(upstream.far, splicetest.Server(far))
		near := tls.Client(upstream.near, clientTLS(ca, "upstream.test"))
		upstreamNear = near
		handshakes = append(handshakes, near.Handshake, b.upstream.Handshake)
	}
	done := make(chan error, len(handshakes))
	for _, handshake := range handshakes {
		go func() { done <- handshake() }()
	}
	for range handshakes {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if o.Idle == 0 {
		o.Idle = time.Hour
	}
	if o.Linger == 0 {
		o.Linger = time.Minute
	}
	o.ToUpstream, o.ToClient = &b.toUpstream, &b.toClient
	o.Done = func(r splice.Result) { b.result = r; close(b.ended) }
	b.Splice = e.Start(clientNear, upstreamNear, o)
	t.Cleanup(func() {
		b.Cut(splice.Shutdown, nil)
		<-b.ended
	})
	return b
}

func clientTLS(ca *certstest.CA, name string) *tls.Config {
	return &tls.Config{ServerName: name, RootCAs: ca.Pool(), DynamicRecordSizingDisabled: true}
}

func serverTLS(t testing.TB, ca *certstest.CA, name string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, name))}, DynamicRecordSizingDisabled: true}
}

// wait waits until the splice has ended.
func (b *bridge) wait(t testing.TB) splice.Result {
	t.Helper()
	select {
	case <-b.ended:
	case <-time.After(time.Minute):
		t.Fatal("the splice does not end")
	}
	return b.result
}

// wantCounts waits until the splice has ended and checks the byte counts.
func (b *bridge) wantCounts(t testing.TB, toUpstream, toClient int) {
	t.Helper()
	r := b.wait(t)
	if r.ToUpstream != uint64(toUpstream) || r.ToClient != uint64(toClient) ||
		b.toUpstream.Load() != r.ToUpstream || b.toClient.Load() != r.ToClient {
		t.Errorf("%+v, counted %d to the upstream and %d to the client, want %d and %d",
			r, b.toUpstream.Load(), b.toClient.Load(), toUpstream, toClient)
	}
}
