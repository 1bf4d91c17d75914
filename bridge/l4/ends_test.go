package l4_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
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
	b.client = b.gate.dial(t, clientTLS)
	handshakes := make(chan error, 1)
	go func() { handshakes <- b.client.Handshake() }()
	b.upstream = accept(t, ln, upstreamTLS)
	if err := b.upstream.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-handshakes; err != nil {
		t.Fatal(err)
	}
	return b
}

// stalledBridge returns a bridge whose client does not read what the upstream sends.
func stalledBridge(t *testing.T, p pki, c combination, table l4.Table) (*bridge, *splicetest.Flood, chan struct{}) {
	b := c.connect(t, p, table)
	enough := make(chan struct{})
	f := splicetest.NewFlood(b.upstream, b.client, enough)
	splicetest.Settle(t, &f.Accepted)
	return b, f, enough
}

func secureAndNot(t *testing.T, f func(t *testing.T, p pki, c combination)) {
	p := newPKI(t)
	for _, version := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
		c := combination{"tcp", "tcp", version, version}
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			f(t, p, c)
		})
	}
}

// A drain waits for a slow client, and the client gets everything.
func TestDrainWaitsForAStalledReader(t *testing.T) {
	secureAndNot(t, func(t *testing.T, p pki, c combination) {
		b, f, enough := stalledBridge(t, p, c, l4.Table{})
		b.gate.StopAccepting()
		down := make(chan error, 1)
		go func() { down <- b.gate.Shutdown(context.Background()) }()
		close(enough)
		if wrong := f.Read(); wrong != "" {
			t.Error(wrong)
		}
		select {
		case err := <-down:
			t.Fatalf("Shutdown returned %v with a connection open", err)
		default:
		}
		b.client.CloseWrite()
		b.upstream.WantEnd(t, "", clean)
		if err := <-down; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		<-f.Ended
	})
}

// When its context ends, Shutdown cuts a stalled write in either direction, and neither
// side sees a complete stream.
func TestShutdownCutsAStalledWrite(t *testing.T) {
	secureAndNot(t, func(t *testing.T, p pki, c combination) {
		b, down, _ := stalledBridge(t, p, c, l4.Table{})
		up := splicetest.NewFlood(b.client, b.upstream, make(chan struct{}))
		splicetest.Settle(t, &up.Accepted)
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- b.gate.Shutdown(ctx) }()
		cancel()
		if err := <-stopped; !errors.Is(err, context.Canceled) {
			t.Errorf("Shutdown: %v", err)
		}
		for _, f := range []*splicetest.Flood{down, up} {
			if how := f.To.How(<-f.Ended); how != reset {
				t.Errorf("the write ended with %s", how)
			}
			// The writer saw the reset, or the reader does. A TLS stream must not end
			// cleanly.
			if _, how := f.To.ReadAll(); c.clientTLS != 0 && how == clean {
				t.Error("a stream that was cut had a clean end")
			}
		}
		if s := b.gate.Stats(); s.Open != 0 {
			t.Errorf("%d connections are still open", s.Open)
		}
	})
}

// A stream that is cut off while its reader is stalled never ends cleanly, no matter
// how much of it the reader still gets.
func TestStreamTruncatedWhileStalled(t *testing.T) {
	p := newPKI(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, other := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
			c := combination{"tcp", "tcp", other, version}
			t.Run(c.String(), func(t *testing.T) {
				t.Parallel()
				b, f, enough := stalledBridge(t, p, c, l4.Table{})
				read := make(chan string, 1)
				go func() {
					_, how := b.client.ReadAll()
					read <- how
				}()
				// Reading resumes, so the current write completes; then the stream ends
				// without close_notify.
				b.upstream.Raw.Conn.(*net.TCPConn).CloseWrite()
				close(enough)
				<-f.Ended
				if how := <-read; how != reset && how != truncated {
					t.Errorf("saw a %s end", how)
				}
			})
		}
	}
}

// Linger applies to silence: a half-closed connection whose other direction waits for a
// slow reader stays open for IdleTimeout.
func TestLingerSparesAStalledReader(t *testing.T) {
	secureAndNot(t, func(t *testing.T, p pki, c combination) {
		const linger = 8 * time.Second // longer than a busy machine delays the writer
		b, f, enough := stalledBridge(t, p, c, l4.Table{Linger: linger, IdleTimeout: time.Hour})
		if err := b.client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b.upstream.WantEnd(t, "", clean)
		// Another, silent connection is cut meanwhile, so linger has passed.
		silent := c.connect(t, p, l4.Table{Linger: linger})
		silent.client.CloseWrite()
		silent.client.WantEnd(t, "", reset)
		close(enough)
		if wrong := f.Read(); wrong != "" {
			t.Error(wrong)
		}
		if err := <-f.Ended; err != nil {
			t.Error(err)
		}
	})
}

// IdleTimeout cuts a stalled write with a reset to both sides, although the client has
// ended its stream and Linger is longer.
func TestIdleTimeoutCutsAStalledWriteAfterAHalfClose(t *testing.T) {
	secureAndNot(t, func(t *testing.T, p pki, c combination) {
		// The limit is longer than a busy machine takes between the two handshakes and the flood.
		b := c.connect(t, p, l4.Table{IdleTimeout: 5 * time.Second, Linger: time.Hour})
		f := splicetest.NewFlood(b.upstream, b.client, make(chan struct{}))
		b.client.CloseWrite()
		if how := b.upstream.How(<-f.Ended); how != reset {
			t.Errorf("the write ended with %s", how)
		}
		if _, how := b.client.ReadAll(); how == clean {
			t.Error("the reader saw a clean end")
		}
		eventually(t, "the connection has ended", func() bool { return b.gate.Stats().Open == 0 })
	})
}
