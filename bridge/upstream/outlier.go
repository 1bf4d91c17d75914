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

// OutlierOptions say because of what an endpoint is left alone for a while
// (ejected). What counts is what traffic meets with: connections that cannot be
// made, and what NoteResult and NoteFailure are told. Of several rules each
// works for itself.
type OutlierOptions struct {
	Failures   int // that many in a row; 0: they are not counted
	Handshakes int // that many failed handshakes in a row; 0: they are not counted

	// Reasons are the reasons of handshakes that count. Handshakes that fail for
	// another count in no rule. Nil: all that are the endpoint's.
	Reasons []certs.Reason

	// Percent is the share of failures that is too many, of at least MinAttempts
	// within Window. 0: it is not looked at. Zeros of the others: 20 and 10s.
	Percent     int
	MinAttempts int
	Window      time.Duration

	// Base is for how long an endpoint is ejected. It is twice as long each
	// further time, up to Most, until it was well for as long. Zeros: 30s, 300s.
	Base, Most time.Duration

	// MaxPercent is how many of the endpoints that are not draining may be
	// ejected at once, in percent. One that takes traffic stays in any case.
	MaxPercent int
}

func (o OutlierOptions) withDefaults() OutlierOptions {
	o.MinAttempts = cmp.Or(o.MinAttempts, 20)
	o.Window = cmp.Or(o.Window, 10*time.Second)
	o.Base = cmp.Or(o.Base, 30*time.Second)
	o.Most = cmp.Or(o.Most, max(300*time.Second, o.Base))
	return o
}

// A record is what traffic met with at an endpoint, and its ejection. The
// Endpoints of an address in the revisions of an upstream share it.
type record struct {
	began time.Time

	// out is when the ejection ends, as time since began; 0: it is not ejected.
	out atomic.Int64

	failures, handshakes atomic.Int32 // that failed, in a row

	mu     sync.Mutex
	window window
	times  int           // ejections, each soon after the one before
	lasted time.Duration // the last
	ended  time.Duration // when it was over, since began
	why    string
}

// isOut reports whether the endpoint is ejected now.
func (r *record) isOut() bool {
	if r == nil {
		return false
	}
	out := r.out.Load()
	return out != 0 && time.Since(r.began) < time.Duration(out)
}

// until returns when the ejection ends and why there is one; zero: there is none.
func (r *record) until() (end time.Time, why string) {
	if !r.isOut() {
		return time.Time{}, ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.began.Add(time.Duration(r.out.Load())), r.why
}

// clear begins to count anew.
func (r *record) clear() {
	r.failures.Store(0)
	r.handshakes.Store(0)
	r.mu.Lock()
	r.window = window{}
	r.mu.Unlock()
}

// begin begins an ejection, and returns how long it is.
func (r *record) begin(o *OutlierOptions, why string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Since(r.began)
	if now-r.ended >= r.lasted {
		r.times = 0
	}
	d := o.Base
	for range r.times {
		if d = min(2*d, o.Most); d == o.Most {
			break
		}
	}
	r.times++
	d -= rand.N(d/10 + 1)
	r.lasted, r.why = d, why
	r.out.Store(int64(now + d))
	return d
}

// end ends the ejection.
func (r *record) end() {
	r.clear()
	r.mu.Lock()
	r.ended = time.Since(r.began)
	r.mu.Unlock()
	r.out.Store(0)
}

// An outlier judges one endpoint by what traffic meets with. It works from the
// beginning until stop. A nil outlier judges nothing.
type outlier struct {
	endpoint *Endpoint
	options  OutlierOptions
	record   *record

	ejections atomic.Uint64

	// Guarded by coordinator.ejecting.
	stopped bool
	timer   *time.Timer // ends the ejection; nil: none is known here
}

func (o *outlier) coordinator() *coordinator { return o.endpoint.upstream.coordinator }

// isOut reports whether the endpoint is ejected now.
func (o *outlier) isOut() bool { return o != nil && o.record.isOut() }

// good is told of an attempt that went well.
func (o *outlier) good() {
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

// handshakeSucceeded is told of a handshake that went well.
func (o *outlier) handshakeSucceeded() {
	if o != nil && o.record.handshakes.Load() != 0 {
		o.record.handshakes.Store(0)
	}
}

// bad is told of an attempt that failed, in its handshake or otherwise. Failure
// may be nil.
func (o *outlier) bad(handshake bool, failure *Failure) {
	if o == nil || o.record.isOut() {
		return // what was under way as it was ejected is no news
	}
	if handshake && len(o.options.Reasons) > 0 && !slices.Contains(o.options.Reasons, failure.Reason) {
		return
	}
	if why := o.count(handshake); why != "" {
		o.eject(why, failure)
	}
}

// count counts a failure and returns why it is one too many, if it is.
func (o *outlier) count(handshake bool) (why string) {
	r := o.record
	if n := int(r.failures.Add(1)); o.options.Failures > 0 && n >= o.options.Failures {
		why = fmt.Sprintf("%d failures in a row", n)
	}
	if handshake {
		if n := int(r.handshakes.Add(1)); o.options.Handshakes > 0 && n >= o.options.Handshakes {
			why = fmt.Sprintf("%d failed handshakes in a row", n)
		}
	}
	if o.options.Percent > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.window.add(time.Since(r.began), o.options.Window, true)
		all, failed := r.window.sum()
		if all >= o.options.MinAttempts && failed*100 >= all*o.options.Percent {
			why = fmt.Sprintf("%d of %d attempts failed within %v", failed, all, o.options.Window)
		}
	}
	return why
}

// eject has the endpoint left alone for a while, if that may be.
func (o *outlier) eject(why string, failure *Failure) {
	d := o.tryEject(why)
	if d == 0 {
		return
	}
	event := Failure{Message: fmt.Sprintf("%s; it is left alone for %v", why, d.Round(time.Millisecond)), Time: time.Now()}
	if failure != nil {
		event.Reason = failure.Reason
		event.Message += ". The last: " + failure.Message
	}
	e := o.endpoint
	e.upstream.log.Warn("endpoint ejected", "endpoint", e.Address(), "reason", string(event.Reason), "error", event.Message)
	e.tell(Event{Kind: Ejected, Health: e.Health(), Failure: &event})
	e.changed(true)
}

// tryEject returns for how long the endpoint is ejected; 0: it is not.
func (o *outlier) tryEject(why string) time.Duration {
	o.coordinator().ejecting.Lock()
	defer o.coordinator().ejecting.Unlock()
	if o.stopped || o.record.isOut() {
		return 0
	}
	o.record.clear() // whatever is decided: the next decision takes as many again
	if !o.mayEject() {
		return 0
	}
	d := o.record.begin(&o.options, why)
	o.ejections.Add(1)
	o.arm(d)
	return d
}

// mayEject reports whether one endpoint more may be left alone. One that takes no
// traffic because of its health check is not: it is away in any case.
func (o *outlier) mayEject() bool {
	all, out, others := 0, 0, false
	for _, s := range o.endpoint.upstream.Endpoints() {
		if s.options.Draining {
			continue
		}
		all++
		switch {
		case s.isBad():
		case s.outlier.isOut():
			out++
		case s != o.endpoint:
			others = true
		}
	}
	return others && (out+1)*100 <= all*o.options.MaxPercent
}

// arm has the ejection end after d. coordinator.ejecting is held.
func (o *outlier) arm(d time.Duration) {
	if o.timer == nil {
		o.timer = time.AfterFunc(d, func() {
			_ = protect(o.endpoint.upstream.log, "ending an ejection", o.over) // which has logged it
		})
	} else {
		o.timer.Reset(d)
	}
}

// over ends an ejection whose time has come.
func (o *outlier) over() {
	o.coordinator().ejecting.Lock()
	ended := !o.record.isOut() && o.readmit()
	o.coordinator().ejecting.Unlock()
	if ended {
		o.returned("its time is over")
	}
}

// forgive ends an ejection, if there is one, before its time.
func (o *outlier) forgive(why string) {
	if !o.isOut() {
		return
	}
	o.coordinator().ejecting.Lock()
	ended := o.readmit()
	o.coordinator().ejecting.Unlock()
	if ended {
		o.returned(why)
	}
}

// readmit ends an ejection, and reports whether there was one. coordinator.ejecting is
// held; the caller then calls returned without it.
func (o *outlier) readmit() bool {
	if o.stopped || o.record.out.Load() == 0 {
		return false
	}
	o.record.end()
	if o.timer != nil {
		o.timer.Stop()
	}
	return true
}

// returned tells that an ejection is over.
func (o *outlier) returned(why string) {
	e := o.endpoint
	e.upstream.log.Info("ejected endpoint takes traffic again", "endpoint", e.Address(), "why", why)
	e.tell(Event{Kind: Returned, Health: e.Health(), Failure: &Failure{Message: why, Time: time.Now()}})
	e.changed(true)
}

// start takes over the ejection that another revision began.
func (o *outlier) start() {
	if o == nil || o.record.out.Load() == 0 {
		return
	}
	o.coordinator().ejecting.Lock()
	defer o.coordinator().ejecting.Unlock()
	if out := o.record.out.Load(); out != 0 && !o.stopped && o.timer == nil {
		o.arm(max(time.Duration(out)-time.Since(o.record.began), 0))
	}
}

// stop ends the judging. An ejection goes on, for who shares the record.
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

// windowParts is in how many steps a window moves on.
const windowParts = 10

// A window counts attempts and failures of the last while.
type window struct {
	width time.Duration // of a part
	parts [windowParts]struct {
		at          int64 // which of all parts there will ever be
		all, failed int
	}
	now int64
}

// add counts an attempt made at a time.
func (w *window) add(now, length time.Duration, failed bool) {
	if width := max(length/windowParts, 1); w.width != width {
		*w = window{width: width}
	}
	w.now = int64(now/w.width) + 1 // 0 is a part that was never used
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
