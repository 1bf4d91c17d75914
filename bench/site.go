package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/backend"
	"github.com/drawbridge-gateway/drawbridge/bench/keys"
	"github.com/drawbridge-gateway/drawbridge/bench/load"
	"github.com/drawbridge-gateway/drawbridge/bench/proxy"
	"github.com/drawbridge-gateway/drawbridge/bench/stats"
)

// A sample is one measurement of one proxy.
type sample struct {
	// Figure is CPU seconds per unit of work, or bytes per connection.
	Figure float64 `json:"figure"`
	// Units, Wall and CPU are the inputs of the figure; times are in seconds.
	Units float64 `json:"units"`
	Wall  float64 `json:"wall_seconds,omitempty"`
	CPU   float64 `json:"cpu_seconds,omitempty"`
	// P50, P99 and P999 are latencies in seconds; 0 means no value.
	P50  float64 `json:"p50_seconds,omitempty"`
	P99  float64 `json:"p99_seconds,omitempty"`
	P999 float64 `json:"p999_seconds,omitempty"`
	// Resumed is the share of resumed handshakes with the backend.
	Resumed float64 `json:"resumed,omitempty"`
	// More holds the row's other measurements, by the name of their column.
	More map[string]float64 `json:"more,omitempty"`
}

// newKeys makes keys in a new directory. The caller must call remove when no site needs
// them any longer.
func newKeys() (k *keys.Keys, remove func(), err error) {
	dir, err := os.MkdirTemp("", "bench-keys-")
	if err != nil {
		return nil, nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	if k, err = keys.New(dir); err != nil {
		remove()
		return nil, nil, err
	}
	return k, remove, nil
}

// A site is one proxy that works on one row, with its own backend.
type site struct {
	kind    proxy.Kind
	keys    *keys.Keys
	row     row
	options *options
	backend *backend.Backend
	running *proxy.Running // nil until first used
	// profiled is the number of recorded profiles.
	profiled int
}

func newSite(ctx context.Context, kind proxy.Kind, k *keys.Keys, row row, o *options) (*site, error) {
	if row.service.Postgres {
		b, err := backend.StartPostgres(ctx, k)
		if err != nil {
			return nil, err
		}
		return &site{kind: kind, keys: k, row: row, options: o, backend: b}, nil
	}
	serve := backend.Start
	var protocols []string
	switch {
	case row.service.GRPC:
		serve = backend.StartGRPC
	case row.service.UpstreamHTTP2:
		serve, protocols = backend.StartHTTP, []string{"h2", "http/1.1"}
	case row.service.HTTP:
		serve = backend.StartHTTP
	}
	b, err := serve(k.BackendTLS(protocols...))
	if err != nil {
		return nil, err
	}
	return &site{kind: kind, keys: k, row: row, options: o, backend: b}, nil
}

func (s *site) close() {
	s.stop()
	_ = s.backend.Close()
}

func (s *site) start(ctx context.Context) (err error) {
	if s.running == nil {
		s.running, err = proxy.Start(ctx, s.kind, s.keys, s.backend.Address(), s.row.service)
	}
	return err
}

func (s *site) stop() {
	if s.running != nil {
		s.running.Stop()
		s.running = nil
	}
}

func (s *site) target() load.Target {
	t := load.Target{Address: s.running.Address}
	if s.row.service.ListenTLS {
		t.TLS = s.keys.ClientTLS()
		if s.row.service.ClientHTTP2 {
			t.TLS = s.keys.ClientTLS("h2")
		}
	}
	return t
}

// measure takes one measurement.
func (s *site) measure(ctx context.Context) (sample, error) {
	if s.row.work.idle > 0 || s.row.work.config > 0 {
		// A process may keep memory that it once used, so measure a new one.
		s.stop()
	}
	if err := s.start(ctx); err != nil {
		return sample{}, err // the error includes the process's output
	}
	// Collect garbage now, because a collection of this program during the
	// measurement would take CPU from the proxy.
	runtime.GC()
	before := s.backend.Mismatched.Load()
	var got sample
	var err error
	switch w := s.row.work; {
	case w.idle > 0:
		got, err = s.weigh(ctx)
	case w.config > 0:
		got, err = s.grow(ctx)
	case w.program != nil:
		got, err = s.run(ctx)
	default:
		got, err = s.drive(ctx, w.load, w.workers)
	}
	if n := s.backend.Mismatched.Load() - before; n > 0 {
		err = errors.Join(err, fmt.Errorf("the backend received wrong bytes on %d connections", n))
	}
	if err != nil {
		if said := s.running.Log(); said != "" {
			err = fmt.Errorf("%w; its output: %s", err, said)
		}
	}
	return got, err
}

// readyTimeout bounds the time until every worker has exchanged its first
// bytes.
const readyTimeout = 60 * time.Second

// drive runs the load for a while and measures the middle part.
func (s *site) drive(ctx context.Context, drive load.Func, workers int) (got sample, err error) {
	loadCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := load.NewMeter(workers)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		drive(loadCtx, s.target(), m)
	}()
	finish := func() error { // finish waits until all goroutines of the load have ended
		cancel()
		<-ended
		if failed, wrong := m.Failed.Load(), m.Mismatched.Load(); failed+wrong > 0 {
			return fmt.Errorf("%d connections failed, %d brought wrong bytes; the first: %w", failed, wrong, m.Err())
		}
		return nil
	}
	select {
	case <-m.Ready():
	case <-ended:
		return got, finish()
	case <-m.Broken():
		return got, finish()
	case <-ctx.Done():
		return got, errors.Join(ctx.Err(), finish())
	case <-time.After(readyTimeout):
		return got, errors.Join(fmt.Errorf("not every connection was made in %v", readyTimeout), finish())
	}
	if err := load.Sleep(ctx, s.options.warmUp); err != nil {
		return got, errors.Join(err, finish())
	}

	units := m.Units
	if s.row.work.atBackend {
		sofar := s.backend.Received.Load()
		units = func() int64 { return s.backend.Received.Load() - sofar }
	}
	handshakes, resumed := s.backend.Handshakes.Load(), s.backend.Resumed.Load()
	cpu, errBefore := s.running.Tree.CPU()
	start := time.Now()
	m.Start()
	errPause := s.hold(ctx)
	// Wait for some traffic, which may take longer on a busy machine.
	for time.Since(start) < readyTimeout && units() == 0 && errPause == nil {
		errPause = load.Sleep(ctx, 10*time.Millisecond)
	}
	m.Stop()
	done := units()
	wall := time.Since(start)
	after, errAfter := s.running.Tree.CPU()
	handshakes, resumed = s.backend.Handshakes.Load()-handshakes, s.backend.Resumed.Load()-resumed

	if err := errors.Join(errBefore, errPause, errAfter, finish()); err != nil {
		return got, err
	}
	if done == 0 {
		return got, errors.New("no traffic was forwarded")
	}
	got = sample{Units: float64(done), Wall: wall.Seconds(), CPU: (after - cpu).Seconds()}
	got.Figure = got.CPU / got.Units
	latencies := m.Latencies()
	got.P50 = time.Duration(stats.Quantile(latencies, 0.50)).Seconds()
	got.P99 = time.Duration(stats.Quantile(latencies, 0.99)).Seconds()
	got.P999 = time.Duration(stats.Quantile(latencies, 0.999)).Seconds()
	if handshakes > 0 {
		got.Resumed = float64(resumed) / float64(handshakes)
	}
	return got, nil
}

// run runs a program and measures all of it.
func (s *site) run(ctx context.Context) (sample, error) {
	before, errBefore := s.running.Tree.CPU()
	profiled := make(chan error, 1)
	if s.profiles() {
		go func() { profiled <- s.hold(ctx) }()
	} else {
		profiled <- nil
	}
	start := time.Now()
	did, err := s.row.work.program.Run(ctx, s.target(), s.options.length)
	wall := time.Since(start)
	err = errors.Join(err, <-profiled)
	after, errAfter := s.running.Tree.CPU()
	if err := errors.Join(errBefore, err, errAfter); err != nil {
		return sample{}, err
	}
	if did.Units == 0 {
		return sample{}, errors.New("no traffic was forwarded")
	}
	got := sample{
		Units: float64(did.Units), Wall: wall.Seconds(), CPU: (after - before).Seconds(),
		P50: did.P50.Seconds(), P99: did.P99.Seconds(),
	}
	got.Figure = got.CPU / got.Units
	return got, nil
}

// weigh opens connections and measures the proxy's memory for them.
func (s *site) weigh(ctx context.Context) (got sample, err error) {
	n := s.row.work.idle
	before, err := s.running.Tree.Anon()
	if err != nil {
		return got, err
	}
	check, closeAll, err := load.Idle(ctx, s.target(), n, s.row.work.idler)
	if err != nil {
		return got, err
	}
	defer closeAll()
	if err := load.Sleep(ctx, s.options.silence); err != nil {
		return got, err
	}
	after, err := s.running.Tree.Anon()
	if err != nil {
		return got, err
	}
	if err := check(); err != nil {
		return got, fmt.Errorf("a connection broke while idle: %w", err)
	}
	return sample{Figure: float64(after-before) / float64(n), Units: float64(n)}, nil
}
