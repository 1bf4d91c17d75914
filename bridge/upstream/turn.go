package upstream

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"
)

// A Key is what consistent hashing chooses an endpoint by. The zero Key is that
// of who has none: any endpoint will do.
type Key struct {
	Hash  uint64
	Known bool
}

// A Turn is the way of one request, or TCP connection, through an Upstream: which
// endpoints it has been sent to, and the room it takes there until End.
//
// The zero Turn is ready for Begin, and so is one that has ended. It is used by
// one goroutine at a time.
type Turn struct {
	upstream *Upstream
	group    *group // whose endpoints order has
	key      Key
	order    []*Endpoint // those that are left, best first
	at       *Endpoint   // where it is now
}

// Begin starts the way through u. It must be ended with End.
func (t *Turn) Begin(u *Upstream, key Key) {
	g := u.group.Load()
	*t = Turn{upstream: u, group: g, key: key, order: g.order()}
}

// Next returns the endpoint to try now: the best of those that take traffic and
// were not tried, or ErrNoEndpoint if there is none. The endpoint before it is
// left.
//
// Where there must be waiting, until a limit allows another request, the first
// endpoints are known or one has answered its first health check, wait is asked for
// what bounds it, and done called when that is over. Nil: nothing is waited for.
func (t *Turn) Next(wait func() (ctx context.Context, done func())) (*Endpoint, error) {
	if e := t.pick(); e != nil {
		return e, nil
	}
	if t.upstream.dns != nil {
		t.renew(wait)
		if len(t.group.endpoints) == 0 {
			return nil, t.upstream.dns.failure()
		}
	}
	return t.await(wait)
}

// pick returns the best of those that are left and take traffic; nil if there is
// none.
func (t *Turn) pick() *Endpoint {
	for i, e := range t.order {
		if !e.takes() {
			continue
		}
		if i > 0 { // the order of one alone is shared
			copy(t.order[1:i+1], t.order[:i])
		}
		t.at, t.order = e, t.order[1:]
		return e
	}
	return nil
}

// renew has the Turn go on to endpoints that there were not when it began.
func (t *Turn) renew(wait func() (ctx context.Context, done func())) {
	before := t.group
	if len(before.endpoints) == 0 {
		t.upstream.dns.await(wait)
	}
	if t.group = t.upstream.group.Load(); t.group == before {
		return
	}
	left := t.order // which took no traffic
	t.order = slices.DeleteFunc(slices.Clone(t.group.order()), func(e *Endpoint) bool {
		return slices.Contains(before.endpoints, e) && !slices.Contains(left, e) // and so was tried
	})
}

// End gives back what the Turn holds. Calling it again, or without Begin, does
// nothing.
func (t *Turn) End() { *t = Turn{} }

// Dial connects to the first endpoint that can be connected to, as
// Upstream.DialAs says. The Turn stays there until End.
func (t *Turn) Dial(ctx context.Context, p Purpose, host string) (net.Conn, *Endpoint, error) {
	var errs []error
	wait := func() (context.Context, func()) {
		begun, trace := time.Now(), traceOf(ctx)
		return ctx, func() { trace.Queued += time.Since(begun) }
	}
	for {
		e, err := t.Next(wait)
		if err != nil && len(errs) == 0 {
			return nil, nil, err
		}
		if err != nil {
			break
		}
		if p == Stream {
			if conn := e.warm.take(); conn != nil {
				return conn, e, nil
			}
		}
		conn, err := e.DialAs(ctx, p, host)
		if err == nil {
			return conn, e, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 1 {
		return nil, nil, errs[0]
	}
	return nil, nil, errors.Join(errs...)
}
