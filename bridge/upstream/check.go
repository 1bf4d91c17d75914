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

// CheckOptions say how endpoints are asked whether they are well. An endpoint
// that is asked takes no traffic before its first answer, nor while its answers
// are bad; its Health is what they come to, whatever traffic meets with.
type CheckOptions struct {
	// Ask asks an endpoint, over a connection of CheckConnect, CheckHandshake or
	// CheckDial, and returns nil if it is well. The error says why it is not, as
	// certs.Classify has it. It returns soon after ctx has ended, and is not
	// called twice at once for one endpoint.
	Ask func(ctx context.Context, e *Endpoint) error

	// Kind is what is asked, in the words of whoever made Ask. What an endpoint
	// answered in the revision before counts in this one if its Kind is the same.
	Kind string

	Interval time.Duration // from one question to the next, with jitter of a tenth; 0: 10s
	Timeout  time.Duration // for an answer; 0: 5s

	Healthy   int // good answers in a row after which a bad endpoint is good; 0: 2
	Unhealthy int // bad ones after which a good endpoint is bad; 0: 3
}

func (o CheckOptions) withDefaults() CheckOptions {
	o.Interval = cmp.Or(o.Interval, 10*time.Second)
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.Healthy = cmp.Or(o.Healthy, 2)
	o.Unhealthy = cmp.Or(o.Unhealthy, 3)
	return o
}

// A Check is what the questions to an endpoint have come to.
type Check struct {
	Healthy bool // it counts as well
	Checked bool // there was an answer

	// The last answer.
	Time     time.Time // when it was there
	Duration time.Duration
	Reason   certs.Reason // why it was bad; "" if it was good
	Message  string       // printable, at most about 500 bytes

	Checks, Failures uint64 // answers since the Upstream was made, and the bad ones
}

// A verdict is what an endpoint's answers amount to. The Endpoints of an address
// in the revisions of an upstream share it: a change of the upstream does not
// make it unknown whether the endpoint is well.
type verdict struct {
	health health // Unknown before the first answer

	mu     sync.Mutex
	streak int // answers in a row that contradict it
	last   Check
}

// note takes in an answer and returns what the verdict is now, and whether that
// is another than before. The first answer decides alone.
func (v *verdict) note(o *CheckOptions, last Check) (now Health, changed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last = last
	was, answer, enough := v.health.load(), Up, o.Healthy
	if last.Reason != "" {
		answer, enough = Down, o.Unhealthy
	}
	if answer == was {
		v.streak = 0
		return was, false
	}
	v.streak++
	if was != Unknown && v.streak < enough {
		return was, false
	}
	v.streak = 0
	return answer, true
}

// A checker asks one endpoint whether it is well, on a goroutine of its own from
// start to end. A nil checker asks nothing.
type checker struct {
	endpoint *Endpoint
	options  CheckOptions
	verdict  *verdict

	worker worker

	made, failed atomic.Uint64
}

// start begins to ask, unless that was done before.
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

// end ends the questions, for good; wait waits for it.
func (c *checker) end() {
	if c != nil {
		c.worker.end()
	}
}

// wait returns when the goroutine that start began has ended, which is soon
// after end was called.
func (c *checker) wait() {
	if c != nil {
		c.worker.wait()
	}
}

// run asks until ctx ends: at once, then after some part of an interval, so that
// many endpoints that began together are not asked together, then regularly.
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
		c.ask(ctx)
		if first {
			timer.Reset(rand.N(interval))
			continue
		}
		next := interval - interval/20 + rand.N(interval/10+1)
		timer.Reset(max(next-time.Since(begin), 0))
	}
}

// ask asks once.
func (c *checker) ask(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	begin := time.Now()
	err := c.askProtected(limited)
	if ctx.Err() != nil || socket.OutOfDescriptors(err) {
		return // nothing was learnt about the endpoint
	}
	now := time.Now()
	answer := Check{Time: now, Duration: now.Sub(begin), Reason: certs.Classify(err)}
	c.made.Add(1)
	if err != nil {
		c.failed.Add(1)
		answer.Message = printable(err.Error())
	}
	again := c.verdict.health.load() != Unknown
	health, changed := c.verdict.note(&c.options, answer)
	c.applyVerdict(health, changed, again, answer)
}

// askProtected asks once. A panic counts as a bad answer: nothing shows that the
// endpoint is well.
func (c *checker) askProtected(ctx context.Context) (err error) {
	if panicked := protect(c.log(), "health check", func() { err = c.options.Ask(ctx, c.endpoint) }); panicked != nil {
		return panicked
	}
	return err
}

// applyVerdict acts on a verdict that the answer led to, or did not change. Again says
// that there was one before.
func (c *checker) applyVerdict(now Health, changed, again bool, answer Check) {
	e := c.endpoint
	event := Event{Kind: HealthChanged, Health: now}
	if answer.Reason != "" {
		event.Failure = &Failure{Reason: answer.Reason, Message: answer.Message, Time: answer.Time}
	}
	if now == Up {
		event.Failure = nil
	}
	if changed && now == Up {
		// Before it takes traffic: what it was ejected for is over.
		e.outlier.forgive("it answers its health check again")
	}
	e.health.set(now, func() { e.tell(event) })
	if !changed {
		return
	}
	if now == Down {
		e.upstream.log.Warn("endpoint fails its health check", "endpoint", e.Address(), "reason", string(answer.Reason), "error", answer.Message)
	} else {
		e.upstream.log.Info("endpoint answers its health check", "endpoint", e.Address())
	}
	e.changed(again)
}

// status tells what the questions have come to; nil if none is asked.
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
