package l4_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
)

// A combination is the network and the TLS version on each side of the gate.
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

// A bridge is a gate with one connection through it.
type bridge struct {
	gate             *gate
	client, upstream *peer

	clientSecrets, upstreamSecrets *secrets
}

// connect opens a connection of combination c through a new gate.
func (c combination) connect(t *testing.T, p pki, table l4.Table) *bridge {
	t.Helper()
	ln := listen(t, c.upstreamNetwork)
	endpoint := plain(ln)
	var upstreamTLS, clientTLS *tls.Config
	if c.upstreamTLS != 0 {
		upstreamTLS = p.server(t, "upstream.test")
		upstreamTLS.MaxVersion = c.upstreamTLS
		endpoint = over(t, ln, p.upstream(t, "upstream.test"))
	}
	if c.clientTLS != 0 {
		table.TLS = p.listener(t, "gate.test")
		clientTLS = p.client("gate.test")
		clientTLS.MaxVersion = c.clientTLS
	}
	table.Default = to(group(endpoint))
	b := &bridge{gate: open(t, c.clientNetwork, l4.Options{Table: func() *l4.Table { return &table }})}
	b.clientSecrets, b.upstreamSecrets = secretly(clientTLS), secretly(upstreamTLS)
	b.client = b.gate.dial(t, clientTLS)
	shaken := make(chan error, 1)
	go func() { shaken <- b.client.shake() }()
	b.upstream = accept(t, ln, upstreamTLS)
	if err := b.upstream.shake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	return b
}

// combinations calls f for each combination over both networks.
func combinations(t *testing.T, f func(t *testing.T, p pki, c combination)) {
	p := newPKI(t)
	versions := []uint16{0, tls.VersionTLS12, tls.VersionTLS13}
	for _, networks := range [][2]string{{"tcp", "tcp"}, {"unix", "tcp"}, {"tcp", "unix"}} {
		for _, clientTLS := range versions {
			for _, upstreamTLS := range versions {
				c := combination{networks[0], networks[1], clientTLS, upstreamTLS}
				t.Run(c.String(), func(t *testing.T) { f(t, p, c) })
			}
		}
	}
}

func TestClientHalfCloses(t *testing.T) {
	combinations(t, func(t *testing.T, p pki, c combination) {
		b := c.connect(t, p, l4.Table{})
		b.client.send(t, "question")
		if err := b.client.closeWrite(); err != nil {
			t.Fatal(err)
		}
		b.upstream.wantEnd(t, "question", clean)
		b.upstream.send(t, "answer")
		b.client.want(t, "answer")
		b.upstream.send(t, ", and the end")
		b.upstream.closeWrite()
		b.client.wantEnd(t, ", and the end", clean)
		b.wantCounts(t, len("question"), len("answer, and the end"))
	})
}

func TestUpstreamHalfCloses(t *testing.T) {
	combinations(t, func(t *testing.T, p pki, c combination) {
		b := c.connect(t, p, l4.Table{})
		b.upstream.send(t, "hello")
		b.upstream.closeWrite()
		b.client.wantEnd(t, "hello", clean)
		b.client.send(t, "late ")
		b.upstream.want(t, "late ")
		b.client.send(t, "words")
		b.client.closeWrite()
		b.upstream.wantEnd(t, "words", clean)
		b.wantCounts(t, len("late words"), len("hello"))
	})
}

// wantCounts waits until the connection has ended and checks the byte counts.
func (b *bridge) wantCounts(t *testing.T, toUpstream, toClient int) {
	t.Helper()
	eventually(t, "the connection is over", func() bool { return b.gate.Stats().Open == 0 })
	if s := b.gate.Stats(); s.BytesToUpstream != uint64(toUpstream) || s.BytesToClient != uint64(toClient) {
		t.Errorf("counted %d to the upstream and %d to the client, want %d and %d",
			s.BytesToUpstream, s.BytesToClient, toUpstream, toClient)
	}
}

// incomplete lists how a side may see an incomplete stream: never as a clean end.
// Unix-domain sockets have no reset, so tests leave them out.
var incomplete = []string{reset, truncated}

// A TLS stream that is cut off without close_notify is not forwarded as a clean end,
// though crypto/tls reports it as one at a record boundary.
func TestTruncatedStreamIsNotForwardedAsClean(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, other := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
			t.Run("client, "+combination{"tcp", "tcp", version, other}.String(), func(t *testing.T) {
				b := combination{"tcp", "tcp", version, other}.connect(t, p, l4.Table{})
				b.client.send(t, "part")
				b.upstream.want(t, "part")
				b.client.raw.Conn.(*net.TCPConn).CloseWrite() // a FIN where close_notify should be
				b.upstream.wantEnd(t, "", incomplete...)
			})
			t.Run("upstream, "+combination{"tcp", "tcp", other, version}.String(), func(t *testing.T) {
				b := combination{"tcp", "tcp", other, version}.connect(t, p, l4.Table{})
				b.upstream.send(t, "part")
				b.client.want(t, "part")
				b.upstream.raw.Conn.(*net.TCPConn).CloseWrite()
				b.client.wantEnd(t, "", incomplete...)
			})
		}
	}
}

// The same holds within a record.
func TestStreamTruncatedWithinARecord(t *testing.T) {
	p := newPKI(t)
	b := combination{"tcp", "tcp", tls.VersionTLS13, 0}.connect(t, p, l4.Table{})
	b.client.send(t, "part")
	b.upstream.want(t, "part")
	b.client.raw.Conn.Write([]byte{23, 3, 3, 0, 100, 1, 2, 3})
	b.client.raw.Conn.(*net.TCPConn).CloseWrite()
	b.upstream.wantEnd(t, "", reset)
}

func TestResetIsForwardedAsReset(t *testing.T) {
	p := newPKI(t)
	for _, version := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
		c := combination{"tcp", "tcp", version, version}
		t.Run("from the client, "+c.String(), func(t *testing.T) {
			b := c.connect(t, p, l4.Table{})
			b.client.send(t, "x")
			b.upstream.want(t, "x")
			b.client.reset()
			b.upstream.wantEnd(t, "", reset)
		})
		t.Run("from the upstream, "+c.String(), func(t *testing.T) {
			b := c.connect(t, p, l4.Table{})
			b.upstream.send(t, "x")
			b.client.want(t, "x")
			b.upstream.reset()
			b.client.wantEnd(t, "", reset)
		})
		t.Run("after a half-close, "+c.String(), func(t *testing.T) {
			b := c.connect(t, p, l4.Table{})
			b.client.send(t, "x")
			b.client.closeWrite()
			b.upstream.wantEnd(t, "x", clean)
			b.upstream.reset()
			b.client.wantEnd(t, "", reset)
		})
	}
}

// The client receives the whole answer of an upstream that answers early and stops
// reading.
func TestAnswerOfAnUpstreamThatStopsReadingArrives(t *testing.T) {
	p := newPKI(t)
	b := combination{"tcp", "tcp", 0, tls.VersionTLS13}.connect(t, p, l4.Table{})
	b.upstream.send(t, "too large")
	b.upstream.closeWrite()
	b.client.wantEnd(t, "too large", clean)
	b.upstream.reset()
	for { // the gate resets the client once the upstream has reset the gate
		if _, err := b.client.Write([]byte(strings.Repeat("x", 1000))); err != nil {
			break
		}
	}
	b.gate.Shutdown(t.Context())
}

// Bytes that an upstream sends after it has stopped reading still arrive.
func TestUpstreamThatOnlyWrites(t *testing.T) {
	p := newPKI(t)
	b := combination{"tcp", "unix", 0, 0}.connect(t, p, l4.Table{})
	b.upstream.raw.Conn.(*net.UnixConn).CloseRead()
	b.client.send(t, "this is never read")
	for range 100 { // the write to the upstream has failed by then
		b.upstream.send(t, "w")
		b.client.want(t, "w")
	}
	b.upstream.closeWrite()
	b.client.wantEnd(t, "", clean)
	b.wantCounts(t, 0, 100)
}

// The kernel reports a reset once. If a write gets the error, the reader sees what
// looks like a clean end, which must not be forwarded.
func TestResetDuringAWriteIsNotForwardedAsClean(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	for range 20 {
		b := combination{"tcp", "tcp", 0, 0}.connect(t, p, l4.Table{})
		b.client.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		for chunk := make([]byte, 1<<20); ; { // until every buffer on the path is full
			if _, err := b.client.Write(chunk); err != nil {
				break
			}
		}
		b.upstream.reset()
		b.client.wantEnd(t, "", reset)
	}
}

func TestLingerEndsASilentHalfClosedConnection(t *testing.T) {
	p := newPKI(t)
	for _, version := range []uint16{0, tls.VersionTLS13} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			b := combination{"tcp", "tcp", version, version}.connect(t, p, l4.Table{Linger: 80 * time.Millisecond})
			b.client.send(t, "bye")
			b.client.closeWrite()
			b.upstream.wantEnd(t, "bye", clean)
			// The upstream never ends its stream, so the client's stream is incomplete.
			b.client.wantEnd(t, "", reset)
			b.wantCounts(t, 3, 0)
		})
	}
}

func TestIdleConnectionIsCut(t *testing.T) {
	p := newPKI(t)
	for _, version := range []uint16{0, tls.VersionTLS13} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			b := combination{"tcp", "tcp", version, version}.connect(t, p, l4.Table{IdleTimeout: 80 * time.Millisecond})
			b.client.wantEnd(t, "", reset)
			b.upstream.wantEnd(t, "", reset)
			b.wantCounts(t, 0, 0)
		})
	}
}

// A side that reads nothing is cut although the other direction is busy.
func TestStalledWriteIsCut(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	for _, version := range []uint16{0, tls.VersionTLS13} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			b := combination{"tcp", "tcp", version, version}.connect(t, p, l4.Table{IdleTimeout: 250 * time.Millisecond})
			stalled := make(chan struct{})
			go func() { // the client reads none of this
				defer close(stalled)
				for chunk := make([]byte, 1<<16); ; {
					if _, err := b.upstream.Write(chunk); err != nil {
						return
					}
				}
			}()
			for { // but keeps sending
				if _, err := b.client.Write([]byte("x")); err != nil {
					break
				}
				b.upstream.Read(make([]byte, 16))
			}
			<-stalled
		})
	}
}
