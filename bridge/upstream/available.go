package upstream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Health returns the result of the endpoint's health check or, without a
// health check, of the last attempt to connect.
func (e *Endpoint) Health() Health { return e.health.load() }

// failsCheck reports whether the endpoint takes no traffic because of its health
// check, including before the first result.
func (e *Endpoint) failsCheck() bool { return e.checker != nil && e.health.load() != Up }

// isPending reports whether the first result of the health check is
// outstanding.
func (e *Endpoint) isPending() bool { return e.checker != nil && e.health.load() == Unknown }

// isUsable reports whether neither health check nor outlier detection keeps
// traffic from the endpoint.
func (e *Endpoint) isUsable() bool { return !e.failsCheck() && !e.outlier.isEjected() }

// Unavailable explains why the endpoint takes no traffic now; "" if it does.
func (e *Endpoint) Unavailable() string {
	switch {
	case e.options.Draining:
		return "draining"
	case e.Left():
		return "is no longer in DNS"
	case e.isPending():
		return "its first health check has not been answered yet"
	case e.failsCheck():
		check := e.checker.status()
		if check.Reason == "" {
			return "has failed its health check and not yet passed it often enough"
		}
		return fmt.Sprintf("fails its health check: %s: %s", check.Reason, check.Message)
	}
	if end, reason := e.ejected(); !end.IsZero() {
		return fmt.Sprintf("ejected until %s: %s", end.UTC().Format(time.RFC3339), reason)
	}
	return ""
}

// ejected returns when the ejection ends, and its reason; zero if there is no
// ejection.
func (e *Endpoint) ejected() (until time.Time, reason string) {
	if e.outlier == nil {
		return time.Time{}, ""
	}
	return e.outlier.record.until()
}

// changed notifies all waiters that the endpoint has started or stopped taking
// traffic. recovered says that it took traffic before.
func (e *Endpoint) changed(recovered bool) {
	if recovered && e.takesTraffic() {
		e.cameUp(time.Now())
	} else {
		e.upstream.changed()
	}
	e.upstream.coordinator.announce()
	e.warm.signal()
}

// A coordinator is shared by the revisions of an upstream. It serializes their
// decisions about ejections and notifies all of them of changes.
type coordinator struct {
	ejecting sync.Mutex // held to start or end an ejection

	mu   sync.Mutex
	news chan struct{} // closed when an endpoint changes; nil: no waiter
}

// change returns a channel that is closed when an endpoint starts or stops
// taking traffic.
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

// await waits for an untried endpoint to take traffic, but only while the first
// health check of some endpoint is outstanding. If no endpoint takes traffic,
// await ends an ejection early.
func (t *Turn) await(wait func() (ctx context.Context, done func())) error {
	u := t.upstream
	var deadline <-chan time.Time
	for {
		// Subscribe before looking, so that no change is missed.
		change := u.coordinator.change()
		pending := slices.ContainsFunc(u.Endpoints(), (*Endpoint).isPending)
		if err := t.next(wait); err != ErrNoEndpoint {
			return err
		}
		if u.endFirstEjection() {
			continue
		}
		if wait == nil || !pending {
			return ErrNoEndpoint
		}
		if deadline == nil {
			timer := time.NewTimer(u.options.Check.withDefaults().Timeout)
			defer timer.Stop()
			deadline = timer.C
		}
		ctx, done := wait()
		timedOut := false
		select {
		case <-change:
		case <-ctx.Done():
			timedOut = true
		case <-deadline:
			timedOut = true
		}
		done()
		if timedOut {
			return ErrNoEndpoint
		}
	}
}

// endFirstEjection ends the ejection that would end first, if no endpoint
// takes traffic. It reports whether it did.
func (u *Upstream) endFirstEjection() bool {
	first := u.firstToReturn()
	if first == nil {
		return false
	}
	first.outlier.reportReturn("no other endpoint takes traffic")
	return true
}

func (u *Upstream) firstToReturn() *Endpoint {
	u.coordinator.ejecting.Lock()
	defer u.coordinator.ejecting.Unlock()
	var first *Endpoint
	for _, e := range u.Endpoints() {
		switch {
		case e.takesTraffic():
			return nil
		case e.Draining() || e.failsCheck() || !e.outlier.isEjected():
		case first == nil || e.outlier.record.ejectedUntil.Load() < first.outlier.record.ejectedUntil.Load():
			first = e
		}
	}
	if first == nil || !first.outlier.readmit() {
		return nil
	}
	return first
}

// inherit copies what the previous revision knows about the endpoint's
// address.
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

// watch starts health checks and outlier detection of the endpoint, as Options
// configure them.
func (e *Endpoint) watch() {
	o := &e.upstream.options
	if o.Check.Check != nil && !e.options.Draining {
		e.checker = &checker{endpoint: e, options: o.Check.withDefaults(), verdict: new(verdict)}
		e.health = &e.checker.verdict.health
	}
	if o.Outliers != nil {
		e.outlier = &outlier{endpoint: e, options: o.Outliers.withDefaults(), record: &record{began: time.Now()}}
	}
}

// An address identifies an endpoint.
type address struct{ network, address string }

// byAddress returns the endpoints by address.
func (u *Upstream) byAddress() map[address]*Endpoint {
	all := make(map[address]*Endpoint)
	for _, e := range u.Endpoints() {
		all[address{e.Network(), e.Address()}] = e
	}
	return all
}
