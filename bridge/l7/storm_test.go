package l7

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// Retries do not overload an upstream that fails every request: retries are limited
// to a share of the requests in progress.
func TestRetriesDoNotMultiplyAnOutage(t *testing.T) {
	const clients, each = 50, 8
	for _, c := range []struct {
		name     string
		budget   upstream.RetryBudget
		pause    time.Duration
		maxTries float64 // per request
		minTries float64
		outcome  func(http.ResponseWriter)
	}{
		{"503, within the budget", upstream.RetryBudget{Percent: 20, Min: 3}, 0, 1.35, 1, func(w http.ResponseWriter) { http.Error(w, "busy", http.StatusServiceUnavailable) }},
		{"reset, within the budget", upstream.RetryBudget{Percent: 20, Min: 3}, 0, 1.35, 1, func(http.ResponseWriter) { panic(http.ErrAbortHandler) }},
		{"503, without a budget", upstream.RetryBudget{Percent: 100}, time.Microsecond, 4, 3.9, func(w http.ResponseWriter) { http.Error(w, "busy", http.StatusServiceUnavailable) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTestbed(t)
			var tries, most, now atomic.Int64
			back := w.overPlaintext(c.budget, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				tries.Add(1)
				for n := now.Add(1); ; {
					if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
						break
					}
				}
				defer now.Add(-1)
				<-time.After(20 * time.Millisecond) // simulates the wasted work
				c.outcome(rw)
			}))
			_, address := w.gateway(fixed(&Table{Default: retried(back, exchange.Retry{Attempts: 4, Reset: true, Codes: []int{503}, Backoff: c.pause})}))
			var all sync.WaitGroup
			var answered [600]atomic.Int64
			for range clients {
				all.Go(func() {
					conn := w.dial(address)
					for range each {
						conn.send("GET / HTTP/1.1", "Host: a")
						res, err := http.ReadResponse(conn.r, nil)
						if err != nil {
							t.Error(err)
							return
						}
						_, _ = res.Body.Read(make([]byte, 100))
						answered[res.StatusCode].Add(1)
					}
					conn.Close()
				})
			}
			all.Wait()
			made, refused := back.Upstream().Retries().Counts()
			ratio := float64(tries.Load()) / (clients * each)
			t.Logf("%d requests of %d clients made %d tries (%.2f for each), %d at once at most; %d retries, %d more refused",
				clients*each, clients, tries.Load(), ratio, most.Load(), made, refused)
			if ratio > c.maxTries || ratio < c.minTries {
				t.Errorf("%.2f tries for each request, want %v to %v", ratio, c.minTries, c.maxTries)
			}
			if n := answered[502].Load() + answered[503].Load(); n != clients*each {
				t.Errorf("%d of %d requests got 502 or 503", n, clients*each)
			}
			if uint64(tries.Load()) != clients*each+made || c.budget.Percent < 100 && refused == 0 {
				t.Errorf("the budget counted %d retries and refused %d", made, refused)
			}
			eventually(t, "no request is in progress", func() bool {
				return fmt.Sprint(back.Upstream().Retries().InProgress()) == "0 0"
			})
		})
	}
}

// overPlaintext returns a Back to an upstream without TLS, which makes
// connections cheap.
func (w *testbed) overPlaintext(b upstream.RetryBudget, h http.Handler) *backs.Pools {
	ln := listen(w)
	srv := &http.Server{Handler: h, ErrorLog: w.logger(hclog.Trace).StandardLogger(nil)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	w.Cleanup(func() { srv.Close(); <-done })
	return w.newBack(backs.Options{Upstream: upstream.New(upstream.Options{
		Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, RetryBudget: &b, Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: ln.Addr().String()}},
	})})
}
