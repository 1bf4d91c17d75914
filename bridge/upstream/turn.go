package upstream

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"
)

var (
	// ErrNoEndpoint reports that an upstream has no endpoint that takes traffic
	// and was not tried.
	ErrNoEndpoint = errors.New("no endpoint takes new connections")

	// ErrOverloaded reports that every endpoint that could be tried has as much
	// to do as it may, or the upstream as a whole has, and that there is no
	// waiting for it, or was in vain.
	ErrOverloaded = errors.New("a limit of the upstream is reached")
)

// A Turn is the way of one request, or TCP connection, through an Upstream: which
// endpoints it has been sent to, and the room it takes there until End.
//
// The zero Turn is ready for Begin, and so is one that has ended. It is used by
// one goroutine at a time.
type Turn struct {
	upstream  *Upstream
	key       Key
	exclusive bool // a connection that others use too is of no use to it
	preferred *Endpoint
	bounds    Attempts

	admitted bool      // it is counted at the upstream
	at       *Endpoint // where it is now; it is counted there too
	claims   bool      // and so is the connection that it needs there

	tries int                    // endpoints where it was before: these
	tried [triesKept]*Endpoint   // and
	more  map[*Endpoint]struct{} // those that there is no room for

	fulls  int           // how often an endpoint had no connection after all, since it last waited
	ticket uint64        // its place in the queue; 0: it never was in it
	waited time.Duration // in the queue
}

// triesKept is how many endpoints a Turn remembers without allocating.
const triesKept = 8

// Begin starts the way through u. It must be ended with End.
func (t *Turn) Begin(u *Upstream, key Key) { *t = Turn{upstream: u, key: key} }

// Exclusive says that the connection to be used is for this Turn alone, so that
// those which Endpoint.NoteShared counts are of no use to it.
func (t *Turn) Exclusive() { t.exclusive = true }

// Prefer makes e the first endpoint that Next returns, if it takes traffic and has
// room, whatever the policy would choose. Nil: the policy chooses. It does not
// outlive the next Begin.
func (t *Turn) Prefer(e *Endpoint) { t.preferred = e }

// Attempts bound how Turn.Dial tries endpoints. The zero Attempts are no bounds.
type Attempts struct {
	Most int           // endpoints that are tried; 0: all
	Each time.Duration // for connecting to one, with its handshake; 0: the upstream's own timeouts alone
}

// Bound bounds Dial. It does not outlive the next Begin.
func (t *Turn) Bound(a Attempts) { t.bounds = a }

// Next returns the endpoint to try now: the one that the policy chooses of those
// that take traffic, were not tried, and have room; of the backups only if there
// is no other. The endpoint before it is left. Without any it fails with
// ErrNoEndpoint, or, if it is room alone that is missing, with ErrOverloaded.
//
// But before that it waits for room, if the upstream's Limits have it wait: then
// wait is asked for what bounds that, and done called when it is over. Nil:
// nothing is waited for. If ctx ends, its error is returned. Where the endpoints
// come from DNS, the first answer is waited for likewise, for as long as a
// connection may take; and where none takes traffic before it has answered its
// first health check, for as long as that may take.
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

// next is Next of an upstream whose endpoints are known.
func (t *Turn) next(wait func() (ctx context.Context, done func())) error {
	u := t.upstream
	err := ErrOverloaded
	if wait == nil || u.queue.waiting.Load() == 0 { // nobody is overtaken
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

// WithTurn returns a context under which a connection is made for t alone, which
// nobody else uses meanwhile.
func WithTurn(ctx context.Context, t *Turn) context.Context {
	return context.WithValue(ctx, turnKey{}, t)
}

// Connected says that t has its connection to the endpoint where it is, or its part
// in one, or that one is being made for it and counted: then WithTurn sees to that.
// It matters where the upstream limits connections.
func (t *Turn) Connected() {
	if t.claims {
		t.unclaim()
		t.upstream.changed()
	}
}

// Leave leaves the endpoint where the Turn is, which was tried: it is not counted
// there any more. At the upstream it is.
func (t *Turn) Leave() {
	if t.at != nil {
		t.remember(t.at)
		t.leave()
	}
}

// Full says that there was no connection for t at its endpoint, as ErrFull tells:
// Next may come to it again.
func (t *Turn) Full() {
	t.fulls++
	t.leave()
}

// maxFulls bounds how often a Turn is sent to endpoints that have no connection
// for it, whatever is counted there.
const maxFulls = 16

// take chooses an endpoint and counts t there, without waiting. If it fails, what
// is counted is as before; it may have been more for a moment, so that others
// found no room.
func (t *Turn) take() error {
	u := t.upstream
	g := u.group.Load()
	before := t.admitted
	for t.admitted || u.underWay.fewer(0) {
		e := g.pick(t)
		if e == nil {
			break
		}
		if !t.admitted && !u.underWay.take() {
			break
		}
		t.admitted = true
		if e.underWay.take() { // else another was faster
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

// leave takes back what is counted of t at its endpoint, and lets others have it.
func (t *Turn) leave() {
	if t.at != nil {
		t.unclaim()
		t.at.underWay.give()
		t.at = nil
		t.upstream.changed()
	}
}

// release takes back what is counted of t at the upstream.
func (t *Turn) release() {
	if t.admitted {
		t.upstream.underWay.give()
		t.admitted = false
	}
}

// remember notes that an endpoint was tried.
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

// was reports whether an endpoint was tried.
func (t *Turn) was(e *Endpoint) bool {
	if t.tries == 0 {
		return false
	}
	if slices.Contains(t.tried[:min(t.tries, triesKept)], e) {
		return true
	}
	_, was := t.more[e]
	return was
}

// End gives back what the Turn holds. Calling it again, or without Begin, does
// nothing.
func (t *Turn) End() {
	if t.at != nil {
		t.unclaim()
		t.at.underWay.give()
	}
	if t.admitted {
		t.release()
		t.upstream.changed()
	}
	*t = Turn{}
}

// Dial connects to the first endpoint that can be connected to, as
// Upstream.DialAs says. The Turn stays there until End.
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
		if ctx.Err() != nil || len(errs) == t.bounds.Most {
			break
		}
	}
	if len(errs) == 1 {
		return nil, nil, errs[0]
	}
	return nil, nil, errors.Join(errs...)
}

// dial connects to one endpoint within the time for each.
func (t *Turn) dial(ctx context.Context, e *Endpoint, p Purpose, host string) (net.Conn, error) {
	if t.bounds.Each > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.bounds.Each)
		defer cancel()
	}
	return e.DialAs(ctx, p, host)
}
