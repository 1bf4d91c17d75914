// Streams that outlive the drain of an upgrade end with the drain and no earlier. Clients
// that then reconnect are served at once, and no acknowledged write is lost.

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// longStreamDrain is the --drain-timeout of the test. Streams live longer.
const (
	longStreamDrain = 8 * time.Second
	longStreamLife  = 4 * longStreamDrain
)

// longStreams are clients of responses that outlive a drain.
type longStreams struct {
	whole, cut atomic.Int64
	unserved   atomic.Int64 // cut streams whose response had not begun
	open       atomic.Int64

	mu       sync.Mutex
	upgrades []period
}

// A period is the time of an upgrade. If ended is zero, the upgrade continues.
type period struct{ began, ended time.Time }

func TestStreamsThatOutliveTheDrainEndWithIt(t *testing.T) {
	t.Parallel()
	times, count := often(t, "DRAWBRIDGE_UPGRADES", 4), often(t, "DRAWBRIDGE_STREAMS", 20)
	g := upgradable(t, "--ops", "127.0.0.1:0", "--drain-timeout", longStreamDrain.String())
	web := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/stream" {
			return
		}
		end, pace := time.After(longStreamLife), time.NewTicker(250*time.Millisecond)
		defer pace.Stop()
		for {
			if _, err := io.WriteString(w, "."); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-end:
				_, _ = io.WriteString(w, "end")
				return
			case <-r.Context().Done():
				return
			case <-pace.C:
			}
		}
	})
	g.apply(plainUpstream("web", web), listener("web", protocolHTTP, "web"), listener("raw", protocolTCP, "web"))
	addresses := []string{g.address("web"), g.address("raw")}
	load := startNewConnections(t, dialers(map[string]string{addresses[0]: "tcp", addresses[1]: "tcp"}))
	writes := g.startWrites()
	s := &longStreams{}
	ctx, end := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer end()
	for i := range count {
		clients.Go(func() {
			for ctx.Err() == nil {
				if err := s.follow(ctx, addresses[i%len(addresses)]); err != nil {
					t.Errorf("a stream failed: %v", err)
					return
				}
			}
		})
	}
	eventually(t, "every stream is open", func() bool { return s.open.Load() == int64(count) })

	began := time.Now()
	report := func(upgrades int) {
		t.Logf("%d upgrades in %v with %d streams open: %d streams whole, %d cut by a drain, %d of them before their response began; %d new connections (%.0f/s), %d failed; %d acknowledged writes, %d refused because of an upgrade",
			upgrades, time.Since(began).Round(time.Second), count, s.whole.Load(), s.cut.Load(), s.unserved.Load(),
			load.served.Load(), float64(load.served.Load())/time.Since(began).Seconds(), load.failed.Load(), writes.acknowledged.Load(), writes.refused.Load())
	}
	for i := range times {
		if i > 0 && i%100 == 0 {
			report(i)
		}
		s.mu.Lock()
		s.upgrades = append(s.upgrades, period{began: time.Now()})
		s.mu.Unlock()
		if r := g.tryUpgrade(); r.code != 0 {
			t.Fatalf("upgrade: %v", r)
		}
		// From here on, no new client may reach the process that drains.
		s.mu.Lock()
		s.upgrades[len(s.upgrades)-1].ended = time.Now()
		s.mu.Unlock()
	}
	// The last upgrade cuts its streams too.
	eventually(t, "a drain cuts a stream", func() bool { return s.cut.Load() > 0 })
	end()
	clients.Wait()
	load.stop()
	writes.stop()
	report(times)
	if got, want := g.getStatus().GetRevision(), writes.last.Load(); got < want || want == 0 {
		t.Errorf("revision %d is live, and %d was acknowledged", got, want)
	}
}

// follow reads one stream to its end. A drain may end the stream.
func (s *longStreams) follow(ctx context.Context, address string) error {
	started := time.Now()
	conn, err := (&net.Dialer{Timeout: testTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return ignoreAfter(ctx, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := io.WriteString(conn, "GET /stream HTTP/1.0\r\nHost: web.example\r\n\r\n"); err != nil {
		return ignoreAfter(ctx, err)
	}
	text := make([]byte, 0, 4096)
	for {
		n, err := conn.Read(text[len(text):cap(text)])
		if len(text) == 0 && n > 0 {
			s.open.Add(1)
			defer s.open.Add(-1)
		}
		if text = text[:len(text)+n]; err == nil {
			continue
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case strings.HasSuffix(string(text), "end"):
			s.whole.Add(1)
			return nil
		case !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET):
			return err
		case !s.drained(started, time.Now()):
			return fmt.Errorf("no drain had ended after %v: %q, %w", time.Since(started), text, err)
		case len(text) == 0: // a busy machine did not serve it within the drain timeout
			s.unserved.Add(1)
		case !strings.HasPrefix(string(text), "HTTP/1.") || !strings.Contains(string(text), " 200 "):
			return fmt.Errorf("the response is %q", text)
		}
		s.cut.Add(1)
		return nil
	}
}

// drained reports whether the drain of an upgrade has ended by now. Only upgrades
// count that had not ended when the stream started.
func (s *longStreams) drained(started, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.upgrades, func(u period) bool {
		return (u.ended.IsZero() || started.Before(u.ended)) && now.Sub(u.began) >= longStreamDrain
	})
}

func ignoreAfter(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
