package growth

import (
	"context"
	"fmt"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/load"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A kind is a kind of connection.
type kind struct {
	name, file string
	protocol   adminv1.Protocol
	tls        bool // whether the listener speaks TLS
	idler      load.Idler
	active     load.Func
}

// active is the number of connections of the active load.
const active = 16

var kinds = []kind{
	{"HTTP", "growth-idle-http.svg", adminv1.Protocol_PROTOCOL_HTTP, false, load.IdleHTTP, load.HTTP(active, 1<<10, load.Requests)},
	{"HTTP over TLS", "growth-idle-https.svg", adminv1.Protocol_PROTOCOL_HTTP, true, load.IdleHTTP, load.HTTP(active, 1<<10, load.Requests)},
	{"bridged TCP", "growth-idle-tcp.svg", adminv1.Protocol_PROTOCOL_TCP, false, load.IdleEcho, load.Echo(active, 64)},
}

// Rows of Connections.
const (
	connMemory = "memory, MiB above that of no connection"
	connEach   = "memory, KiB for each"
	connAccept = "CPU to accept and answer one, µs"
	connIdle   = "CPU while all are idle, µs/s"
	connActive = "CPU of a request of others, µs"
	connP50    = "its p50, ms"
	connAfter  = "memory when all are closed, MiB above the start"
	connFreed  = "seconds until it was freed"
)

// Connections measures idle connections of each kind.
func Connections(ctx context.Context, o Options) error {
	for _, k := range kinds {
		table := NewTable("idle connections", o.Conns)
		for _, n := range o.Conns {
			http := k.protocol == adminv1.Protocol_PROTOCOL_HTTP
			if err := with(ctx, o, http, func(b *bench) error { return b.idle(ctx, k, n, table) }); err != nil {
				return fmt.Errorf("%d connections, %s: %w", n, k.name, err)
			}
		}
		if err := o.report(table, k.file, "Idle connections, "+k.name, connMemory, connAccept, connActive); err != nil {
			return err
		}
	}
	return nil
}

// idle measures n idle connections.
func (b *bench) idle(ctx context.Context, k kind, n int, table *Table) error {
	put, flush := b.chunks(ctx)
	if err := b.base(put); err != nil {
		return err
	}
	if err := put(b.listener(k.protocol, k.tls, nil)); err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	target := load.Target{Address: b.listen}
	if k.tls {
		target.TLS = b.keys.ClientTLS()
	}
	// A load warms the process, so that its memory does not count for the connections.
	if _, err := b.drive(ctx, target, k.active, active); err != nil {
		return err
	}
	before, err := b.memory(ctx)
	if err != nil {
		return err
	}

	var check func() error
	var closeAll func()
	accept, err := b.cpu(func() (err error) {
		check, closeAll, err = load.Idle(ctx, target, n, k.idler)
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		if closeAll != nil {
			closeAll()
		}
	}()
	during, err := b.memory(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	idle, err := b.cpu(func() error { return load.Sleep(ctx, b.Load) })
	if err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	request, err := b.drive(ctx, target, k.active, active)
	if err != nil {
		return err
	}
	if err := check(); err != nil {
		return fmt.Errorf("an idle connection broke: %w", err)
	}
	closeAll()
	closeAll = nil
	after, freed, err := b.freed(ctx, before, during)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		row    string
		figure float64
	}{
		{connMemory, during - before},
		{connEach, 1024 * (during - before) / float64(n)},
		{connAccept, microseconds(accept) / float64(n)},
		{connIdle, microseconds(idle) / seconds},
		{connActive, request.cpu},
		{connP50, request.p50},
		{connAfter, after - before},
		{connFreed, freed.Seconds()},
	} {
		table.Add(f.row, n, f.figure)
	}
	return nil
}

// freed waits until the gateway has freed most of the memory of closed connections, or for
// b.Settle. It returns the memory, and the time that passed.
func (b *bench) freed(ctx context.Context, before, during float64) (float64, time.Duration, error) {
	for began := time.Now(); ; {
		now, err := b.memory(ctx)
		passed := time.Since(began)
		if err != nil || now <= before+(during-before)/4+2 || passed >= b.Settle {
			return now, passed, err
		}
	}
}
