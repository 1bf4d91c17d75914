package upstream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Health returns what the endpoint's health check says or, where there is none,
// what the last attempt to connect came to.
func (e *Endpoint) Health() Health { return e.health.load() }

// isBad reports whether the endpoint takes no traffic because of its health
// check, be it that the first answer is not there yet.
func (e *Endpoint) isBad() bool { return e.checker != nil && e.health.load() != Up }

// isPending reports whether the endpoint's first answer is waited for.
func (e *Endpoint) isPending() bool { return e.checker != nil && e.health.load() == Unknown }

// isWell reports whether nothing that was learnt about the endpoint keeps traffic
// from it.
func (e *Endpoint) isWell() bool { return !e.isBad() && !e.outlier.isOut() }

// Unavailable returns why the endpoint takes no traffic now, in words; "" if it
// does.
func (e *Endpoint) Unavailable() string {
	switch {
	case e.options.Draining:
		return "draining"
	case e.Left():
		return "DNS has it no more"
	case e.isPending():
		return "its first health check has not been answered yet"
	case e.isBad():
		check := e.checker.status()
		if check.Reason == "" {
			return "has failed its health check, and not answered it often enough since"
		}
		return fmt.Sprintf("fails its health check: %s: %s", check.Reason, check.Message)
	}
	if end, why := e.ejected(); !end.IsZero() {
		return fmt.Sprintf("ejected until %s: %s", end.UTC().Format(time.RFC3339), why)
	}
	return ""
}

// ejected returns until when the endpoint is ejected, and why; zero: it is not.
func (e *Endpoint) ejected() (until time.Time, why string) {
	if e.outlier == nil {
		return time.Time{}, ""
	}
	return e.outlier.record.until()
}

// changed acts on the endpoint's taking traffic from now on, or taking none.
// Again says that it has taken some before.
func (e *Endpoint) changed(again bool) {
	if again && e.takes() {
		e.cameUp(time.Now())
	} else {
		e.upstream.changed()
	}
	e.upstream.coordinator.announce()
	e.warm.signal()
}

// A coordinator is what the revisions of an upstream share: one of them at a time
// decides on an ejection, and all hear of changes.
type coordinator struct {
	ejecting sync.Mutex // held to decide on an ejection or to end one

	mu   sync.Mutex
	news chan struct{} // closed when an endpoint changes; nil: nobody waits
}

// change returns a channel that is closed when an endpoint begins to take
// traffic, or ends.
func (c *coordinator) change() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.news == nil {
		c.news = make(chan struct{})
	}
	return c.news
}

func (c *coordinator) announce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.news != nil {
		close(c.news)
		c.news = nil
	}
}

// await waits until an endpoint that has not been tried takes traffic, if one may
// soon: as long as a first answer is waited for, and that may take. If there is no
// other way, an endpoint that was ejected takes traffic before its time.
func (t *Turn) await(wait func() (ctx context.Context, done func())) error {
	u := t.upstream
	var late <-chan time.Time
	for {
		// Before looking: what changes after it is not missed.
		change := u.coordinator.change()
		pending := slices.ContainsFunc(u.Endpoints(), (*Endpoint).isPending)
		if err := t.next(wait); err != ErrNoEndpoint {
			return err
		}
		if u.reprieve() {
			continue
		}
		if wait == nil || !pending {
			return ErrNoEndpoint
		}
		if late == nil {
			timer := time.NewTimer(u.options.Check.withDefaults().Timeout)
			defer timer.Stop()
			late = timer.C
		}
		ctx, done := wait()
		over := false
		select {
		case <-change:
		case <-ctx.Done():
			over = true
		case <-late:
			over = true
		}
		done()
		if over {
			return ErrNoEndpoint
		}
	}
}

// reprieve has an ejected endpoint take traffic, the one whose time is over
// first, if no endpoint does. It reports whether there was one.
func (u *Upstream) reprieve() bool {
	first := u.firstOut()
	if first == nil {
		return false
	}
	first.outlier.returned("no other endpoint takes traffic")
	return true
}

func (u *Upstream) firstOut() *Endpoint {
	u.coordinator.ejecting.Lock()
	defer u.coordinator.ejecting.Unlock()
	var first *Endpoint
	for _, e := range u.Endpoints() {
		switch {
		case e.takes():
			return nil
		case e.Draining() || e.isBad() || !e.outlier.isOut():
		case first == nil || e.outlier.record.out.Load() < first.outlier.record.out.Load():
			first = e
		}
	}
	if first == nil || !first.outlier.readmit() {
		return nil
	}
	return first
}

// inherit takes over what the revision before knows of the endpoint's address.
func (e *Endpoint) inherit(before *Endpoint) {
	if before == nil {
		return
	}
	if e.checker != nil && before.checker != nil && e.checker.options.Kind == before.checker.options.Kind {
		e.checker.verdict = before.checker.verdict
		e.health = &e.checker.verdict.health
	}
	if e.outlier != nil && before.outlier != nil {
		e.outlier.record = before.outlier.record
	}
}

// watch has what is learnt about the endpoint decide on its taking traffic, as
// Options say.
func (e *Endpoint) watch() {
	o := &e.upstream.options
	if o.Check.Ask != nil && !e.options.Draining {
		e.checker = &checker{endpoint: e, options: o.Check.withDefaults(), verdict: new(verdict)}
		e.health = &e.checker.verdict.health
	}
	if o.Outliers != nil {
		e.outlier = &outlier{endpoint: e, options: o.Outliers.withDefaults(), record: &record{began: time.Now()}}
	}
}

// An address is what an endpoint is known by.
type address struct{ network, address string }

// byAddress returns the endpoints by their addresses.
func (u *Upstream) byAddress() map[address]*Endpoint {
	all := make(map[address]*Endpoint)
	for _, e := range u.Endpoints() {
		all[address{e.Network(), e.Address()}] = e
	}
	return all
}
