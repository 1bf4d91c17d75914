package upstream

import (
	"cmp"
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// CheckOptions configure health checks. A checked endpoint takes no traffic
// before its first result, or while it is unhealthy. Its Health is the result
// of the checks alone and does not depend on traffic.
type CheckOptions struct {
	// Check checks an endpoint over a connection of CheckConnect, CheckHandshake or
	// CheckDial, and returns nil if it is healthy. certs.Classify returns the
	// reason for an error. Check returns soon after ctx ends. It is not called
	// concurrently for one endpoint.
	Check func(ctx context.Context, e *Endpoint) error

	// Kind describes the check, in the words of the package that made Check. A new
	// revision keeps the results of the previous one if its Kind is the same.
	Kind string

	Interval time.Duration // time between checks, with a jitter of a tenth; 0: 10s
	Timeout  time.Duration // timeout of one check; 0: 5s

	Healthy   int // successes in a row that make an unhealthy endpoint healthy; 0: 2
	Unhealthy int // failures in a row that make a healthy endpoint unhealthy; 0: 3
}

func (o CheckOptions) withDefaults() CheckOptions {
	o.Interval = cmp.Or(o.Interval, 10*time.Second)
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.Healthy = cmp.Or(o.Healthy, 2)
	o.Unhealthy = cmp.Or(o.Unhealthy, 3)
	return o
}

// A Check is the result of an endpoint's health checks.
type Check struct {
	Healthy bool // the endpoint counts as healthy
	Checked bool // at least one check completed

	// The last check.
	Time     time.Time // when it completed
	Duration time.Duration
	Reason   certs.Reason // why it failed; "" if it succeeded
	Message  string       // printable, at most about 500 bytes

	Checks, Failures uint64 // checks since the Upstream was created, and how many of them failed
}

// A verdict is the health that an endpoint's checks have established. The
// Endpoints of one address share it across revisions of an upstream, so that a
// change of the upstream does not reset it.
type verdict struct {
	health health // Unknown before the first check

	// deciding is held while a result is recorded and acted on, so that no result acts
	// on a verdict that another one has replaced.
	deciding sync.Mutex

	mu     sync.Mutex
	streak int // consecutive results that contradict health
	last   Check
}

// note records a result and returns the verdict, and whether it changed.
func (v *verdict) note(o *CheckOptions, last Check) (now Health, changed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	was := v.health.load()
	v.last = last
	now, v.streak = o.after(was, v.streak, last)
	return now, now != was
}

// after returns the health and the streak after a result. The first result decides
// alone.
func (o *CheckOptions) after(was Health, streak int, last Check) (Health, int) {
	answer, enough := Up, o.Healthy
	if last.Reason != "" {
		answer, enough = Down, o.Unhealthy
	}
	if answer == was {
		return was, 0
	}
	streak++
	if was != Unknown && streak < enough {
		return was, streak
	}
	return answer, 0
}

// A checker checks one endpoint on its own goroutine. A nil checker does
// nothing.
type checker struct {
	endpoint *Endpoint
	options  CheckOptions
	verdict  *verdict

	worker worker

	made, failed atomic.Uint64
}

// start starts the checks. Later calls have no effect.
func (c *checker) start() {
	if c == nil {
		return
	}
	if ctx, ok := c.worker.begin(); ok {
		c.worker.run(ctx, c.log(), "health check", c.run)
	}
}

func (c *checker) log() hclog.Logger {
	return c.endpoint.upstream.log.With("endpoint", c.endpoint.Address())
}

// end stops the checks for good; wait waits for the goroutine.
func (c *checker) end() {
	if c != nil {
		c.worker.end()
	}
}

// wait returns when the goroutine has ended, which is soon after end was
// called.
func (c *checker) wait() {
	if c != nil {
		c.worker.wait()
	}
}

// run checks until ctx ends: at once, then after a random part of an interval,
// so that endpoints that started together are not checked together, then
// regularly.
func (c *checker) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		begin, interval := time.Now(), c.options.Interval
		c.checkOnce(ctx)
		if first {
			timer.Reset(rand.N(interval))
			continue
		}
		next := interval - interval/20 + rand.N(interval/10+1)
		timer.Reset(max(next-time.Since(begin), 0))
	}
}

// checkOnce runs one check.
func (c *checker) checkOnce(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	begin := time.Now()
	err := c.checkProtected(limited)
	if ctx.Err() != nil || socket.OutOfDescriptors(err) {
		return // the check proved nothing about the endpoint
	}
	now := time.Now()
	answer := Check{Time: now, Duration: now.Sub(begin), Reason: certs.Classify(err)}
	c.made.Add(1)
	if err != nil {
		c.failed.Add(1)
		answer.Message = printable(err.Error())
	}
	c.verdict.deciding.Lock()
	defer c.verdict.deciding.Unlock()
	hadVerdict := c.verdict.health.load() != Unknown
	health, changed := c.verdict.note(&c.options, answer)
	c.applyVerdict(health, changed, hadVerdict, answer)
}

// checkProtected runs one check. A panic counts as a failure, because nothing
// shows that the endpoint is healthy.
func (c *checker) checkProtected(ctx context.Context) (err error) {
	if panicked := protect(c.log(), "health check", func() { err = c.options.Check(ctx, c.endpoint) }); panicked != nil {
		return panicked
	}
	return err
}

// applyVerdict acts on the verdict after a result. hadVerdict says that there
// was an earlier verdict.
func (c *checker) applyVerdict(now Health, changed, hadVerdict bool, answer Check) {
	e := c.endpoint
	event := Event{Kind: HealthChanged, Health: now}
	if answer.Reason != "" {
		event.Failure = &Failure{Reason: answer.Reason, Message: answer.Message, Time: answer.Time}
	}
	if now == Up {
		event.Failure = nil
	}
	if changed && now == Up {
		// The ejection ends first, so that the endpoint can take traffic: a healthy
		// endpoint need not stay ejected.
		e.outlier.endEarly("the endpoint passes its health check again")
	}
	e.health.set(now, func() { e.notify(event) })
	if !changed {
		return
	}
	if now == Down {
		e.upstream.log.Warn("endpoint fails its health check", "endpoint", e.Address(), "reason", string(answer.Reason), "error", answer.Message)
	} else {
		e.upstream.log.Info("endpoint passes its health check", "endpoint", e.Address())
	}
	e.changed(hadVerdict)
}

// status returns the result of the checks, or nil without a checker.
func (c *checker) status() *Check {
	if c == nil {
		return nil
	}
	c.verdict.mu.Lock()
	s := c.verdict.last
	c.verdict.mu.Unlock()
	health := c.verdict.health.load()
	s.Healthy, s.Checked = health == Up, health != Unknown
	s.Checks, s.Failures = c.made.Load(), c.failed.Load()
	return &s
}
