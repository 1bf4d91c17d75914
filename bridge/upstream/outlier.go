package upstream

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// OutlierOptions configure outlier detection, which keeps traffic from a
// failing endpoint for a while (ejects it). It counts failures of traffic:
// failed dials, and results passed to NoteResult and NoteFailure. Each rule
// applies independently.
type OutlierOptions struct {
	Failures   int // failures in a row; 0: no such rule
	Handshakes int // failed handshakes in a row; 0: no such rule

	// Reasons are the handshake failures that count. Other handshake failures
	// count in no rule. Nil: all failures that the endpoint causes.
	Reasons []certs.Reason

	// Percent is the share of failures at which the endpoint is ejected, with at
	// least MinAttempts attempts within Window. 0: no such rule. The other fields
	// default to 20 and 10s.
	Percent     int
	MinAttempts int
	Window      time.Duration

	// Base is the length of the first ejection. Each further ejection is twice as
	// long, up to Max, until the endpoint has worked for as long as the last
	// ejection. Defaults: 30s, 300s.
	Base, Max time.Duration

	// MaxPercent is the share of endpoints, without draining ones, that may be
	// ejected at once. At least one keeps taking traffic.
	MaxPercent int
}

func (o OutlierOptions) withDefaults() OutlierOptions {
	o.MinAttempts = cmp.Or(o.MinAttempts, 20)
	o.Window = cmp.Or(o.Window, 10*time.Second)
	o.Base = cmp.Or(o.Base, 30*time.Second)
	o.Max = cmp.Or(o.Max, max(300*time.Second, o.Base))
	return o
}

// A record holds an endpoint's recent results and its ejection. The Endpoints
// of one address share it across revisions of an upstream.
type record struct {
	began time.Time

	// ejectedUntil is when the ejection ends, as time since began; 0: no ejection.
	ejectedUntil atomic.Int64

	failures, handshakes atomic.Int32 // failures in a row

	mu     sync.Mutex
	window window
	times  int           // ejections in close succession
	lasted time.Duration // duration of the last ejection
	ended  time.Duration // end of the last ejection, since began
	reason string
}

// isEjected reports whether the endpoint is ejected now.
func (r *record) isEjected() bool {
	if r == nil {
		return false
	}
	out := r.ejectedUntil.Load()
	return out != 0 && time.Since(r.began) < time.Duration(out)
}

// until returns when the ejection ends and its reason; zero: no ejection.
func (r *record) until() (end time.Time, reason string) {
	if !r.isEjected() {
		return time.Time{}, ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.began.Add(time.Duration(r.ejectedUntil.Load())), r.reason
}

// clear resets the counts.
func (r *record) clear() {
	r.failures.Store(0)
	r.handshakes.Store(0)
	r.mu.Lock()
	r.window = window{}
	r.mu.Unlock()
}

// begin starts an ejection, and returns its length.
func (r *record) begin(o *OutlierOptions, reason string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Since(r.began)
	if now-r.ended >= r.lasted {
		r.times = 0
	}
	d := o.Base
	for range r.times {
		if d = min(2*d, o.Max); d == o.Max {
			break
		}
	}
	r.times++
	d -= rand.N(d/10 + 1)
	r.lasted, r.reason = d, reason
	r.ejectedUntil.Store(int64(now + d))
	return d
}

// end ends the ejection.
func (r *record) end() {
	r.clear()
	r.mu.Lock()
	r.ended = time.Since(r.began)
	r.mu.Unlock()
	r.ejectedUntil.Store(0)
}

// An outlier decides on ejections of one endpoint by the results of its
// traffic, until stop. A nil outlier does nothing.
type outlier struct {
	endpoint *Endpoint
	options  OutlierOptions
	record   *record

	ejections atomic.Uint64

	// Guarded by coordinator.ejecting.
	stopped bool
	timer   *time.Timer // ends the ejection; nil: no ejection of this revision
}

func (o *outlier) coordinator() *coordinator { return o.endpoint.upstream.coordinator }

// isEjected reports whether the endpoint is ejected now.
func (o *outlier) isEjected() bool { return o != nil && o.record.isEjected() }

// recordSuccess records a successful attempt.
func (o *outlier) recordSuccess() {
	if o == nil {
		return
	}
	if o.record.failures.Load() != 0 {
		o.record.failures.Store(0)
	}
	if o.options.Percent > 0 {
		o.record.mu.Lock()
		o.record.window.add(time.Since(o.record.began), o.options.Window, false)
		o.record.mu.Unlock()
	}
}

// handshakeSucceeded records a successful handshake.
func (o *outlier) handshakeSucceeded() {
	if o != nil && o.record.handshakes.Load() != 0 {
		o.record.handshakes.Store(0)
	}
}

// recordFailure records a failed attempt; handshake reports that its handshake failed.
// Failure may be nil.
func (o *outlier) recordFailure(handshake bool, failure *Failure) {
	if o == nil || o.record.isEjected() {
		return // the attempt started before the ejection
	}
	if handshake && len(o.options.Reasons) > 0 && !slices.Contains(o.options.Reasons, failure.Reason) {
		return
	}
	if reason := o.count(handshake); reason != "" {
		o.eject(reason, failure)
	}
}

// count counts a failure, and returns the reason to eject, if any.
func (o *outlier) count(handshake bool) (reason string) {
	r := o.record
	if n := int(r.failures.Add(1)); o.options.Failures > 0 && n >= o.options.Failures {
		reason = fmt.Sprintf("%d failures in a row", n)
	}
	if handshake {
		if n := int(r.handshakes.Add(1)); o.options.Handshakes > 0 && n >= o.options.Handshakes {
			reason = fmt.Sprintf("%d failed handshakes in a row", n)
		}
	}
	if o.options.Percent > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.window.add(time.Since(r.began), o.options.Window, true)
		all, failed := r.window.sum()
		if all >= o.options.MinAttempts && failed*100 >= all*o.options.Percent {
			reason = fmt.Sprintf("%d of %d attempts failed within %v", failed, all, o.options.Window)
		}
	}
	return reason
}

// eject ejects the endpoint, if the rules allow it.
func (o *outlier) eject(reason string, failure *Failure) {
	d := o.tryEject(reason)
	if d == 0 {
		return
	}
	event := Failure{Message: fmt.Sprintf("%s; ejected for %v", reason, d.Round(time.Millisecond)), Time: time.Now()}
	if failure != nil {
		event.Reason = failure.Reason
		event.Message += ". The last: " + failure.Message
	}
	e := o.endpoint
	e.upstream.log.Warn("endpoint ejected", "endpoint", e.Address(), "reason", string(event.Reason), "error", event.Message)
	e.notify(Event{Kind: Ejected, Health: e.Health(), Failure: &event})
	e.changed(true)
}

// tryEject ejects the endpoint and returns for how long; 0: it does not.
func (o *outlier) tryEject(reason string) time.Duration {
	o.coordinator().ejecting.Lock()
	defer o.coordinator().ejecting.Unlock()
	if o.stopped || o.record.isEjected() {
		return 0
	}
	o.record.clear() // either way, the next decision needs as many failures again
	if !o.mayEject() {
		return 0
	}
	d := o.record.begin(&o.options, reason)
	o.ejections.Add(1)
	o.arm(d)
	return d
}

// mayEject reports whether one more endpoint may be ejected. An endpoint that
// fails its health check does not count: it takes no traffic anyway.
func (o *outlier) mayEject() bool {
	all, out, others := 0, 0, false
	for _, s := range o.endpoint.upstream.Endpoints() {
		if s.options.Draining {
			continue
		}
		all++
		switch {
		case s.failsCheck():
		case s.outlier.isEjected():
			out++
		case s != o.endpoint:
			others = true
		}
	}
	return others && (out+1)*100 <= all*o.options.MaxPercent
}

// arm schedules the end of the ejection after d. coordinator.ejecting is held.
func (o *outlier) arm(d time.Duration) {
	if o.timer == nil {
		o.timer = time.AfterFunc(d, func() {
			_ = protect(o.endpoint.upstream.log, "ending an ejection", o.expire) // protect has logged a panic
		})
	} else {
		o.timer.Reset(d)
	}
}

// expire ends an ejection when its time is over.
func (o *outlier) expire() {
	o.coordinator().ejecting.Lock()
	ended := !o.record.isEjected() && o.readmit()
	o.coordinator().ejecting.Unlock()
	if ended {
		o.reportReturn("the ejection has ended")
	}
}

// endEarly ends an ejection early, if there is one.
func (o *outlier) endEarly(reason string) {
	if !o.isEjected() {
		return
	}
	o.coordinator().ejecting.Lock()
	ended := o.readmit()
	o.coordinator().ejecting.Unlock()
	if ended {
		o.reportReturn(reason)
	}
}

// readmit ends an ejection, and reports whether there was one.
// coordinator.ejecting is held; the caller releases it and then calls
// reportReturn.
func (o *outlier) readmit() bool {
	if o.stopped || o.record.ejectedUntil.Load() == 0 {
		return false
	}
	o.record.end()
	if o.timer != nil {
		o.timer.Stop()
	}
	return true
}

// reportReturn logs and reports the end of an ejection.
func (o *outlier) reportReturn(reason string) {
	e := o.endpoint
	e.upstream.log.Info("ejected endpoint takes traffic again", "endpoint", e.Address(), "cause", reason)
	e.notify(Event{Kind: Returned, Health: e.Health(), Failure: &Failure{Message: reason, Time: time.Now()}})
	e.changed(true)
}

// start continues an ejection of another revision.
func (o *outlier) start() {
	if o == nil || o.record.ejectedUntil.Load() == 0 {
		return
	}
	o.coordinator().ejecting.Lock()
	defer o.coordinator().ejecting.Unlock()
	if out := o.record.ejectedUntil.Load(); out != 0 && !o.stopped && o.timer == nil {
		o.arm(max(time.Duration(out)-time.Since(o.record.began), 0))
	}
}

// stop ends outlier detection here. An ejection continues for other revisions
// that share the record.
func (o *outlier) stop() {
	if o == nil {
		return
	}
	o.coordinator().ejecting.Lock()
	defer o.coordinator().ejecting.Unlock()
	o.stopped = true
	if o.timer != nil {
		o.timer.Stop()
	}
}

// windowParts is the number of steps in which a window moves.
const windowParts = 10

// A window counts recent attempts and failures.
type window struct {
	width time.Duration // duration of a part
	parts [windowParts]struct {
		at          int64 // index of the current part
		all, failed int
	}
	now int64
}

// index returns the index of the part at now. 0 is an unused part. Parts that another
// process passed on are older than this process, and have an index too.
func (w *window) index(now time.Duration) int64 { return int64(now/w.width) + windowParts }

// add counts an attempt.
func (w *window) add(now, length time.Duration, failed bool) {
	if width := max(length/windowParts, 1); w.width != width {
		*w = window{width: width}
	}
	w.now = w.index(now)
	p := &w.parts[w.now%windowParts]
	if p.at != w.now {
		p.at, p.all, p.failed = w.now, 0, 0
	}
	p.all++
	if failed {
		p.failed++
	}
}

// sum returns the counts, as of the last attempt.
func (w *window) sum() (all, failed int) {
	for _, p := range w.parts {
		if p.at != 0 && p.at > w.now-windowParts {
			all, failed = all+p.all, failed+p.failed
		}
	}
	return all, failed
}
