package socket

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
)

// retryEvery is the pause between two attempts to take a descriptor.
const retryEvery = 10 * time.Millisecond

// errNoDescriptors reports that the wait for a descriptor timed out.
var errNoDescriptors = fmt.Errorf("no file descriptor is left for traffic: %w", syscall.EMFILE)

// Descriptors divides the process's file descriptors. It reserves some that are
// unavailable to traffic, so that an operator can inspect and change a flooded gateway.
// It admits a client only if a descriptor for the client's upstream connection is free
// too.
//
// All methods may be called concurrently. A nil *Descriptors sets no bound.
type Descriptors struct {
	limit func() int // returns the limit of the process; 0 if unknown, which means no bound

	lastLimit atomic.Int64 // the last result of limit
	others    atomic.Int64
	clients   atomic.Int64
	upstreams atomic.Int64
}

// NewDescriptors returns the Descriptors of a process with the given limit. When the
// limit is reached it calls limit again, because the limit can be raised.
func NewDescriptors(limit func() int) *Descriptors {
	d := &Descriptors{limit: limit}
	d.lastLimit.Store(int64(limit()))
	return d
}

// SetOthers sets how many descriptors are in use for purposes other than
// traffic.
func (d *Descriptors) SetOthers(n int) { d.others.Store(int64(n)) }

// Others returns how many descriptors are kept for purposes other than traffic.
func (d *Descriptors) Others() int { return int(d.others.Load()) }

// reserved returns how many descriptors to keep for everything besides traffic: admin
// and ops connections, files, name lookups, probes.
func reserved(limit int64) int64 { return min(max(limit/16, 32), 1024) }

// AddClients adds n to the number of client connections.
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
		// Each client has an upstream connection, or will have one. Upstream
		// connections beyond the number of clients, such as idle ones, count too.
		return limit <= 0 || clients+max(clients, d.upstreams.Load()) <= max(limit-d.others.Load()-reserved(limit), 4)
	}
	return fits(d.lastLimit.Load()) || fits(d.refreshLimit())
}

func (d *Descriptors) refreshLimit() int64 {
	limit := int64(d.limit())
	d.lastLimit.Store(limit)
	return limit
}

// TakeUpstream takes a descriptor for an upstream connection. If none is free, it waits
// for one until ctx ends, and then fails with EMFILE. It waits only if there are many
// more upstream connections than clients. ReleaseUpstream releases the descriptor.
func (d *Descriptors) TakeUpstream(ctx context.Context) error {
	for d != nil && !d.tryTake() {
		if !pause(ctx) {
			return errNoDescriptors
		}
	}
	return nil
}

func (d *Descriptors) tryTake() bool {
	fits := func(n, limit int64) bool {
		// Traffic never uses the second half of the reserve.
		return limit <= 0 || d.clients.Load()+n <= max(limit-d.others.Load()-reserved(limit)/2, 4)
	}
	n := d.upstreams.Add(1)
	if fits(n, d.lastLimit.Load()) || fits(n, d.refreshLimit()) {
		return true
	}
	d.upstreams.Add(-1)
	return false
}

// ReleaseUpstream releases a descriptor that TakeUpstream took.
func (d *Descriptors) ReleaseUpstream() {
	if d != nil {
		d.upstreams.Add(-1)
	}
}

// Usage returns the process's limit (0 if unknown) and the number of descriptors that
// clients and upstreams hold.
func (d *Descriptors) Usage() (limit, clients, upstreams int) {
	return int(d.lastLimit.Load()), int(d.clients.Load()), int(d.upstreams.Load())
}

// RetryDescriptors calls dial again while it fails for lack of a descriptor, until ctx
// ends.
func RetryDescriptors[T any](ctx context.Context, dial func() (T, error)) (T, error) {
	for {
		v, err := dial()
		if err == nil || !OutOfDescriptors(err) || !pause(ctx) {
			return v, err
		}
	}
}

// OutOfDescriptors reports whether err means that the process or the machine has no
// descriptor left. Such an error says nothing about the endpoint.
func OutOfDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// pause waits for retryEvery. It returns false if ctx has ended.
func pause(ctx context.Context) bool {
	t := time.NewTimer(retryEvery)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
