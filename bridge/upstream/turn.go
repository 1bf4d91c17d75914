package upstream

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/starttls"
)

var (
	// ErrNoEndpoint reports that an upstream has no endpoint that takes traffic
	// and was not tried.
	ErrNoEndpoint = errors.New("no endpoint takes new connections")

	// ErrOverloaded reports that every untried endpoint, or the upstream as a
	// whole, is at its limit, and that waiting was not possible or timed out.
	ErrOverloaded = errors.New("a limit of the upstream is reached")
)

// A Turn takes one request, or TCP connection, through an Upstream. It records
// the tried endpoints and holds room at the current one until End.
//
// The zero Turn, or one that has ended, is ready for Begin. Only one goroutine
// at a time may use it.
type Turn struct {
	upstream  *Upstream
	key       Key
	exclusive bool // the Turn cannot share a connection
	preferred *Endpoint
	bounds    Attempts

	admitted         bool      // counted at the upstream
	at               *Endpoint // current endpoint, where the Turn counts too
	claimsConnection bool      // the Turn claims a connection of the endpoint

	tries int                    // number of endpoints tried before
	tried [triesKept]*Endpoint   // the first of them
	more  map[*Endpoint]struct{} // the others

	greeting []byte // see Greeting

	fulls  int           // how often an endpoint had no connection after all since the Turn last waited
	ticket uint64        // place in the queue; 0: never queued
	waited time.Duration // time spent in the queue
}

// triesKept is how many endpoints a Turn remembers without allocating.
const triesKept = 8

// Begin starts the Turn at u. The caller must call End.
func (t *Turn) Begin(u *Upstream, key Key) { *t = Turn{upstream: u, key: key} }

// Exclusive requires a connection for this Turn alone: it cannot use
// connections that Endpoint.NoteShared counts.
func (t *Turn) Exclusive() { t.exclusive = true }

// Prefer makes e the first endpoint that Next returns, if it takes traffic and
// has room, regardless of the policy. Nil: the policy chooses. The next Begin
// resets it.
func (t *Turn) Prefer(e *Endpoint) { t.preferred = e }

// Attempts bound the attempts of Turn.Dial. The zero Attempts set no bounds.
type Attempts struct {
	MaxEndpoints int           // endpoints to try; 0: all
	PerEndpoint  time.Duration // timeout for connecting to one endpoint, including the handshake; 0: only the upstream's own timeouts
}

// Bound bounds Dial. The next Begin resets it.
func (t *Turn) Bound(a Attempts) { t.bounds = a }

// Next leaves the current endpoint and returns the next one to try: the
// policy's choice among untried endpoints that take traffic and have room.
// Backups come last. It fails with ErrNoEndpoint if no endpoint is left, or
// with ErrOverloaded if only room is missing.
//
// If Limits allow it, Next waits for room: it calls wait for the context that
// bounds the wait, and done afterward. A nil wait means no waiting. If ctx
// ends, Next returns its error. Next also waits for the first DNS answer, for
// at most the connect timeout, and for the first health check of an endpoint
// if no other takes traffic, for at most the check's timeout.
func (t *Turn) Next(wait func() (ctx context.Context, done func())) (*Endpoint, error) {
	u := t.upstream
	t.Leave()
	if t.fulls > maxFulls {
		return nil, u.overload()
	}
	if u.dns != nil && len(u.Endpoints()) == 0 {
		u.dns.await(wait)
	}
	err := t.next(wait)
	if err == ErrNoEndpoint {
		err = t.await(wait)
	}
	if err == ErrNoEndpoint && u.dns != nil && len(u.Endpoints()) == 0 {
		err = u.dns.failure()
	}
	return t.at, err
}

// next implements Next for an upstream whose endpoints are known.
func (t *Turn) next(wait func() (ctx context.Context, done func())) error {
	u := t.upstream
	err := ErrOverloaded
	if wait == nil || u.queue.waiting.Load() == 0 { // no waiting Turn is overtaken
		if err = t.take(); err != nil {
			u.changed()
		}
	}
	switch {
	case err != ErrOverloaded:
	case wait == nil:
		err = u.overload()
	default:
		err = u.await(t, wait)
	}
	return err
}

type turnKey struct{}

// WithTurn returns a context for dialing a connection for t alone.
func WithTurn(ctx context.Context, t *Turn) context.Context {
	return context.WithValue(ctx, turnKey{}, t)
}

// Connected records that t has its connection, or shares one, or that its
// connection is being dialed and counted. WithTurn does this automatically. It
// matters only if the upstream limits connections.
func (t *Turn) Connected() {
	if t.claimsConnection {
		t.unclaim()
		t.upstream.changed()
	}
}

// Leave leaves the current endpoint, which counts as tried. The Turn still
// counts at the upstream.
func (t *Turn) Leave() {
	if t.at != nil {
		t.remember(t.at)
		t.leave()
	}
}

// Full records that there was no connection for t at its endpoint (ErrFull).
// Next may return the same endpoint again.
func (t *Turn) Full() {
	t.fulls++
	t.leave()
}

// maxFulls bounds how often a Turn can be sent to endpoints that have no
// connection for it, in spite of their counts.
const maxFulls = 16

// take chooses an endpoint and counts t there, without waiting. On failure it
// restores the counts; meanwhile concurrent Turns may have found no room.
func (t *Turn) take() error {
	u := t.upstream
	g := u.group.Load()
	before := t.admitted
	for t.admitted || u.inProgress.hasRoom(0) {
		e := g.pick(t)
		if e == nil {
			break
		}
		if !t.admitted && !u.inProgress.acquire() {
			break
		}
		t.admitted = true
		if e.inProgress.acquire() { // otherwise another Turn was faster
			t.at = e
			t.claim()
			return nil
		}
	}
	if !before {
		t.release()
	}
	return g.without(t)
}

// leave undoes the counts of t at its endpoint, and admits waiting Turns.
func (t *Turn) leave() {
	if t.at != nil {
		t.unclaim()
		t.at.inProgress.release()
		t.at = nil
		t.upstream.changed()
	}
}

// release undoes the counts of t at the upstream.
func (t *Turn) release() {
	if t.admitted {
		t.upstream.inProgress.release()
		t.admitted = false
	}
}

// remember records a tried endpoint.
func (t *Turn) remember(e *Endpoint) {
	if t.tries < triesKept {
		t.tried[t.tries] = e
	} else {
		if t.more == nil {
			t.more = make(map[*Endpoint]struct{})
		}
		t.more[e] = struct{}{}
	}
	t.tries++
}

// hasTried reports whether t has tried e.
func (t *Turn) hasTried(e *Endpoint) bool {
	if t.tries == 0 {
		return false
	}
	if slices.Contains(t.tried[:min(t.tries, triesKept)], e) {
		return true
	}
	_, was := t.more[e]
	return was
}

// End releases everything that the Turn holds. Further calls, or calls without
// Begin, have no effect.
func (t *Turn) End() {
	if t.at != nil {
		t.unclaim()
		t.at.inProgress.release()
	}
	if t.admitted {
		t.release()
		t.upstream.changed()
	}
	*t = Turn{}
}

// Dial connects to the first endpoint that accepts a connection: see
// Upstream.DialAs. The Turn stays there until End.
func (t *Turn) Dial(ctx context.Context, p Purpose, host string) (net.Conn, *Endpoint, error) {
	t.Exclusive()
	ctx = WithTurn(ctx, t)
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
				t.Connected()
				return conn, e, nil
			}
		}
		conn, err := t.dial(ctx, e, p, host)
		if err == ErrFull && e.MakeRoom(nil) {
			conn, err = t.dial(ctx, e, p, host)
		}
		if err == nil {
			return conn, e, nil
		}
		if err == ErrFull {
			t.Full()
			continue
		}
		errs = append(errs, err)
		if ctx.Err() != nil || len(errs) == t.bounds.MaxEndpoints || starttls.ClientOf(ctx).Greeted() {
			break
		}
	}
	if len(errs) == 1 {
		return nil, nil, errs[0]
	}
	return nil, nil, errors.Join(errs...)
}

// Greeting returns the greeting for a client that waits for one: see
// Options.Starttls. The server has confirmed it over TLS, because its plaintext
// greeting cannot be trusted. The caller sends it to the client before anything
// else. Empty: the client needs no greeting.
func (t *Turn) Greeting() []byte { return t.greeting }

// dial connects to one endpoint within Attempts.PerEndpoint.
func (t *Turn) dial(ctx context.Context, e *Endpoint, p Purpose, host string) (net.Conn, error) {
	if t.bounds.PerEndpoint > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.bounds.PerEndpoint)
		defer cancel()
	}
	return e.DialAs(ctx, p, host)
}
