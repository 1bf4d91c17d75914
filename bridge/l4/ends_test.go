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

// stalledBridge returns a bridge whose client does not read what the upstream sends.
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

// A drain waits for a slow client, and the client gets everything.
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

// When its context ends, Shutdown cuts a stalled write in either direction, and neither
// side sees a complete stream.
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
			// The writer saw the reset, or the reader does. A TLS stream must not end
			// cleanly.
			if _, how := f.to.readAll(); c.clientTLS != 0 && how == clean {
				t.Error("a stream that was cut had a clean end")
			}
		}
		if s := b.gate.Stats(); s.Open != 0 {
			t.Errorf("%d are still open", s.Open)
		}
	})
}

// A stream that is cut off while its reader is stalled never ends cleanly, however much
// of it the reader still gets.
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
				// Reading resumes, so the current write completes; then the stream ends
				// without close_notify.
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

// Linger applies to silence: a half-closed connection whose other direction waits for a
// slow reader stays open for IdleTimeout.
func TestLingerSparesAStalledReader(t *testing.T) {
	secureAndNot(t, func(t *testing.T, p pki, c combination) {
		const linger = 3 * time.Second // longer than a busy machine delays the writer
		b, f, enough := stalledBridge(t, p, c, l4.Table{Linger: linger, IdleTimeout: time.Hour})
		if err := b.client.closeWrite(); err != nil {
			t.Fatal(err)
		}
		b.upstream.wantEnd(t, "", clean)
		// Another, silent connection is cut meanwhile, so linger has passed.
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

// IdleTimeout cuts a stalled write with a reset to both sides, although the client has
// ended its stream and Linger is longer.
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
