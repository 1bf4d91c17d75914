package l4_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
)

// stalledBridge returns a bridge in which what the upstream sends is stalled.
func stalledBridge(t *testing.T, p pki, c combination, table l4.Table) (*bridge, *flood, chan struct{}) {
	b := c.connect(t, p, table)
	enough := make(chan struct{})
	f := newFlood(b.upstream, b.client, enough)
	settle(t, &f.accepted)
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

// A drain waits for a client that is slow, and the client gets all of it.
func TestDrainWaitsForAStalledReader(t *testing.T) {
	secureAndNot(t, func(t *testing.T, p pki, c combination) {
		b, f, enough := stalledBridge(t, p, c, l4.Table{})
		b.gate.StopAccepting()
		down := make(chan error, 1)
		go func() { down <- b.gate.Shutdown(context.Background()) }()
		close(enough)
		if wrong := f.read(); wrong != "" {
			t.Error(wrong)
		}
		select {
		case err := <-down:
			t.Fatalf("Shutdown returned %v with a connection open", err)
		default:
		}
		b.client.closeWrite()
		b.upstream.wantEnd(t, "", clean)
		if err := <-down; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		<-f.ended
	})
}

// At the end of its time a drain cuts a connection in the middle of a write, in
// either direction, and neither side takes its stream for complete.
func TestShutdownCutsAStalledWrite(t *testing.T) {
	secureAndNot(t, func(t *testing.T, p pki, c combination) {
		b, down, _ := stalledBridge(t, p, c, l4.Table{})
		up := newFlood(b.client, b.upstream, make(chan struct{}))
		settle(t, &up.accepted)
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- b.gate.Shutdown(ctx) }()
		cancel()
		if err := <-stopped; !errors.Is(err, context.Canceled) {
			t.Errorf("Shutdown: %v", err)
		}
		for _, f := range []*flood{down, up} {
			if how := f.to.how(<-f.ended); how != reset {
				t.Errorf("writing met with a %s end", how)
			}
			// The reset was told to the writer, or comes here; what must not
			// come is a clean end of a TLS stream.
			if _, how := f.to.readAll(); c.clientTLS != 0 && how == clean {
				t.Error("a stream that was cut had a clean end")
			}
		}
		if s := b.gate.Stats(); s.Open != 0 {
			t.Errorf("%d are still open", s.Open)
		}
	})
}

// A stream that is cut off while its reader is stalled never has a clean end for
// him, however much of it he still gets.
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
					_, how := b.client.readAll()
					read <- how
				}()
				// Reading goes on, so the write under way comes to its end; the
				// stream then ends without close_notify.
				b.upstream.raw.Conn.(*net.TCPConn).CloseWrite()
				close(enough)
				<-f.ended
				if how := <-read; how != reset && how != truncated {
					t.Errorf("saw a %s end", how)
				}
			})
		}
	}
}

// Linger is for silence: a half-closed connection whose other direction waits for
// a slow reader is left alone for as long as IdleTimeout.
func TestLingerLeavesAStalledReaderAlone(t *testing.T) {
	secureAndNot(t, func(t *testing.T, p pki, c combination) {
		const linger = 3 * time.Second // longer than a busy machine keeps the writer waiting for its turn
		b, f, enough := stalledBridge(t, p, c, l4.Table{Linger: linger, IdleTimeout: time.Hour})
		if err := b.client.closeWrite(); err != nil {
			t.Fatal(err)
		}
		b.upstream.wantEnd(t, "", clean)
		// Another that is silent meanwhile is cut, so linger has passed.
		silent := c.connect(t, p, l4.Table{Linger: linger})
		silent.client.closeWrite()
		silent.client.wantEnd(t, "", reset)
		close(enough)
		if wrong := f.read(); wrong != "" {
			t.Error(wrong)
		}
		if err := <-f.ended; err != nil {
			t.Error(err)
		}
	})
}

// A stalled write is cut by IdleTimeout, with a reset to both, though the client
// has ended its stream and lingering is longer.
func TestIdleTimeoutCutsAStalledWriteAfterAHalfClose(t *testing.T) {
	secureAndNot(t, func(t *testing.T, p pki, c combination) {
		b := c.connect(t, p, l4.Table{IdleTimeout: 300 * time.Millisecond, Linger: time.Hour})
		f := newFlood(b.upstream, b.client, make(chan struct{}))
		b.client.closeWrite()
		if how := b.upstream.how(<-f.ended); how != reset {
			t.Errorf("the writer met with a %s end", how)
		}
		if _, how := b.client.readAll(); how == clean {
			t.Error("the reader saw a clean end")
		}
		eventually(t, "the connection is over", func() bool { return b.gate.Stats().Open == 0 })
	})
}
