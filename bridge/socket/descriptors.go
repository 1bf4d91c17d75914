package socket

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
)

// scarceEvery is how often whoever waits for a descriptor looks again.
const scarceEvery = 10 * time.Millisecond

// errScarce is how a wait for a descriptor ends in vain.
var errScarce = fmt.Errorf("all that traffic may have are in use: %w", syscall.EMFILE)

// Descriptors shares out what file descriptors the process may have. Traffic
// gets so many that some are left for everything else: whoever wants to know how
// the gateway is, or to change it, must get through when it is flooded. And a
// client is accepted only while there will be one for its upstream too.
//
// All methods may be called concurrently. A nil *Descriptors is without bound.
type Descriptors struct {
	limit func() int // of the process; 0: unknown, and so no bound

	known     atomic.Int64 // the limit as it was last asked for
	others    atomic.Int64
	clients   atomic.Int64
	upstreams atomic.Int64
}

// NewDescriptors returns the Descriptors of a process whose limit is as told. It
// is asked for again when it is reached, for it can be raised.
func NewDescriptors(limit func() int) *Descriptors {
	d := &Descriptors{limit: limit}
	d.known.Store(int64(limit()))
	return d
}

// SetOthers says how many descriptors are in use for anything but traffic.
func (d *Descriptors) SetOthers(n int) { d.others.Store(int64(n)) }

// Others returns how many descriptors are kept for anything but traffic.
func (d *Descriptors) Others() int { return int(d.others.Load()) }

// spare is what is left free for what comes and goes besides traffic: admin and
// ops connections, files that are read, names that are resolved, probes.
func spare(limit int64) int64 { return min(max(limit/16, 32), 1024) }

// AddClients counts clients' connections: n more.
func (d *Descriptors) AddClients(n int) {
	if d != nil {
		d.clients.Add(int64(n))
	}
}

// Room reports whether another client may be accepted.
func (d *Descriptors) Room() bool {
	if d == nil {
		return true
	}
	fits := func(limit int64) bool {
		clients := d.clients.Load() + 1
		// Each client has an upstream's connection, or is about to. Those that
		// nobody uses yet count beyond that.
		return limit <= 0 || clients+max(clients, d.upstreams.Load()) <= max(limit-d.others.Load()-spare(limit), 4)
	}
	return fits(d.known.Load()) || fits(d.ask())
}

func (d *Descriptors) ask() int64 {
	limit := int64(d.limit())
	d.known.Store(limit)
	return limit
}

// TakeUpstream takes a descriptor for a connection to an upstream, and waits
// until there is one or ctx ends: then it fails with EMFILE. Unless many more of
// those are made than there are clients, it does not wait. ReleaseUpstream gives
// it back.
func (d *Descriptors) TakeUpstream(ctx context.Context) error {
	for d != nil && !d.tryTake() {
		if !pause(ctx) {
			return errScarce
		}
	}
	return nil
}

func (d *Descriptors) tryTake() bool {
	fits := func(n, limit int64) bool {
		// Half of what is spare is nobody's of all traffic.
		return limit <= 0 || d.clients.Load()+n <= max(limit-d.others.Load()-spare(limit)/2, 4)
	}
	n := d.upstreams.Add(1)
	if fits(n, d.known.Load()) || fits(n, d.ask()) {
		return true
	}
	d.upstreams.Add(-1)
	return false
}

// ReleaseUpstream gives back what TakeUpstream took.
func (d *Descriptors) ReleaseUpstream() {
	if d != nil {
		d.upstreams.Add(-1)
	}
}

// Usage returns the process's limit, 0 if it is unknown, and how many
// descriptors clients and upstreams have.
func (d *Descriptors) Usage() (limit, clients, upstreams int) {
	return int(d.known.Load()), int(d.clients.Load()), int(d.upstreams.Load())
}

// Patiently calls dial until it does not fail for want of a descriptor, or ctx
// ends.
func Patiently[T any](ctx context.Context, dial func() (T, error)) (T, error) {
	for {
		v, err := dial()
		if err == nil || !OutOfDescriptors(err) || !pause(ctx) {
			return v, err
		}
	}
}

// OutOfDescriptors reports whether err says that the process or the machine has
// no descriptor left: that says nothing about whoever was to be reached.
func OutOfDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// pause waits a little; false if ctx has ended.
func pause(ctx context.Context) bool {
	t := time.NewTimer(scarceEvery)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
