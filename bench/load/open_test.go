package load

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/backend"
	"github.com/drawbridge-gateway/drawbridge/bench/keys"
)

// serve starts a backend for loads without a proxy.
func serve(t *testing.T) Target {
	t.Helper()
	k, err := keys.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b, err := backend.StartHTTP(k.BackendTLS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	pair, err := tls.LoadX509KeyPair(k.Client.Chain, k.Client.Key)
	if err != nil {
		t.Fatal(err)
	}
	config := k.ClientTLS()
	config.ServerName, config.Certificates = keys.BackendName, []tls.Certificate{pair}
	return Target{Address: b.Address(), TLS: config}
}

// A late answer delays the requests that are due meanwhile, and the delay of each
// request counts.
func TestLatencyCountsFromTheTimeARequestWasDue(t *testing.T) {
	target := serve(t)
	m := NewMeter(1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	m.Start()
	go func() {
		defer close(ended)
		HTTPAt(1, 1<<20, 1e6)(ctx, target, m) // many more than a connection can carry
	}()
	for m.Units() < 50 {
		select {
		case <-m.Broken():
			t.Fatal(m.Err())
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	<-ended
	all := m.Latencies()
	// Request n is due n microseconds after the start, so each request waits for all
	// earlier ones.
	for i := 1; i < len(all); i++ {
		if all[i] <= all[i-1] {
			t.Fatalf("request %d counts %d ns, the one before it %d ns", i, all[i], all[i-1])
		}
	}
}

func TestALoadFailsWithTheLoadBesideIt(t *testing.T) {
	target := serve(t)
	m := NewMeter(1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	nowhere := func(ctx context.Context, _ Target, m *Meter) {
		m.fail(errMismatch)
		cancel()
	}
	Beside(HTTPAt(1, 1, 1000), nowhere, 1)(ctx, target, m)
	if m.Mismatched.Load() == 0 {
		t.Error("the failure of the other load is lost")
	}
}
