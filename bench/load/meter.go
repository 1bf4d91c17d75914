package load

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// A Meter counts the work of a load while it is open.
type Meter struct {
	// Failed counts broken connections, and Mismatched counts connections with
	// wrong bytes. Both count even while the meter is closed.
	Failed, Mismatched atomic.Int64

	open    atomic.Bool
	units   atomic.Int64
	pending atomic.Int64
	ready   chan struct{}
	broken  chan struct{}

	mu        sync.Mutex
	first     error
	recorders []*Recorder
}

// NewMeter returns a meter for a load with the given number of workers.
func NewMeter(workers int) *Meter {
	m := &Meter{ready: make(chan struct{}), broken: make(chan struct{})}
	m.pending.Store(int64(workers))
	return m
}

// Ready is closed when every worker has exchanged its first bytes.
func (m *Meter) Ready() <-chan struct{} { return m.ready }

// Broken is closed after the first failure.
func (m *Meter) Broken() <-chan struct{} { return m.broken }

// Start opens the meter.
func (m *Meter) Start() { m.open.Store(true) }

// Units returns the units of work so far, while the meter was open.
func (m *Meter) Units() int64 { return m.units.Load() }

// Stop closes the meter for good.
func (m *Meter) Stop() { m.open.Store(false) }

// Err returns the first failure.
func (m *Meter) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.first
}

// Latencies returns all latencies recorded while the meter was open. The load
// must have ended.
func (m *Meter) Latencies() []int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []int64
	for _, r := range m.recorders {
		all = append(all, r.nanoseconds...)
	}
	return all
}

func (m *Meter) workerReady() {
	if m.pending.Add(-1) == 0 {
		close(m.ready)
	}
}

// allReady calls workerReady and returns when every worker is ready, so that
// early workers do not slow down workers that still connect. It reports whether
// to continue.
func (m *Meter) allReady(ctx context.Context) bool {
	m.workerReady()
	select {
	case <-m.ready:
		return true
	case <-m.broken:
	case <-ctx.Done():
	}
	return false
}

func (m *Meter) add(n int) {
	if m.open.Load() {
		m.units.Add(int64(n))
	}
}

func (m *Meter) fail(err error) {
	if err == nil {
		return
	}
	if errors.Is(err, errMismatch) {
		m.Mismatched.Add(1)
	} else {
		m.Failed.Add(1)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first == nil {
		m.first = err
		close(m.broken)
	}
}

// A Recorder keeps the latencies of one worker.
type Recorder struct {
	meter       *Meter
	nanoseconds []int64
}

func (m *Meter) recorder() *Recorder {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &Recorder{meter: m}
	m.recorders = append(m.recorders, r)
	return r
}

func (r *Recorder) record(d time.Duration) {
	if r.meter.open.Load() {
		r.nanoseconds = append(r.nanoseconds, int64(d))
	}
}
