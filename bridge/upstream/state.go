package upstream

import (
	"fmt"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/resolve"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A State holds what an Upstream knows, for the Upstream of another process.
type State struct {
	Endpoints []EndpointState `json:"endpoints"`
	Answer    *resolve.Answer `json:"answer,omitempty"` // the last answer of DNS; nil: the endpoints do not come from DNS
}

// An EndpointState holds what an Upstream knows about an endpoint, for the Upstream of
// another process. Times are of the machine's clock, which both processes share. The TLS
// sessions are secrets.
type EndpointState struct {
	Network string `json:"network"`
	Address string `json:"address"`

	Health      string    `json:"health,omitempty"` // without a health check: "up" or "down"; "": unknown
	LastFailure *Failure  `json:"last_failure,omitempty"`
	ReplyNeeded bool      `json:"reply_needed,omitempty"` // see results
	StreamBroke bool      `json:"stream_broke,omitempty"` // see results
	UpSince     time.Time `json:"up_since,omitzero"`      // start of a slow start that has not ended

	Check   *CheckState         `json:"check,omitempty"`   // nil: there is no result
	Outlier *OutlierState       `json:"outlier,omitempty"` // nil: there is no outlier detection
	Stream  *certs.SessionState `json:"stream,omitempty"`
	HTTP    *certs.SessionState `json:"http,omitempty"`
}

// A CheckState is the verdict of an endpoint's health checks.
type CheckState struct {
	Healthy  bool          `json:"healthy,omitempty"`
	Streak   int           `json:"streak,omitempty"` // consecutive results that contradict Healthy
	Time     time.Time     `json:"time"`             // when the last check completed
	Duration time.Duration `json:"duration"`
	Reason   certs.Reason  `json:"reason,omitempty"`
	Message  string        `json:"message,omitempty"`
}

// ticketsPerName is how many TLS sessions of a name are passed on. A new process gets more
// with its first connections.
const ticketsPerName = 8

// TakeState returns the state of u. It removes TLS tickets from u, because
// each may be used only once, until their size reaches sessionBytes. It returns how much
// of sessionBytes is left.
func (u *Upstream) TakeState(sessionBytes int) (all State, left int) {
	sessions := func(c *certs.Client) *certs.SessionState {
		if c == nil || sessionBytes <= 0 {
			return nil
		}
		s := c.TakeSessions(ticketsPerName)
		sessionBytes -= s.Size()
		return &s
	}
	for _, e := range u.Endpoints() {
		s := e.state()
		s.Stream, s.HTTP = sessions(e.Client(Stream)), sessions(e.Client(HTTP))
		all.Endpoints = append(all.Endpoints, s)
	}
	if u.dns != nil {
		a := u.dns.options.Resolver.Last()
		all.Answer = &a
	}
	return all, sessionBytes
}

func (e *Endpoint) state() EndpointState {
	s := EndpointState{
		Network: e.Network(), Address: e.Address(),
		ReplyNeeded: e.replyNeeded.Load(), StreamBroke: e.streamBroke.Load(),
	}
	if e.checker != nil {
		s.Check = e.checker.verdict.state()
	} else if h := e.health.load(); h != Unknown {
		s.Health = h.String()
	}
	_, s.LastFailure = e.failures.load()
	if since := e.since.Load(); since != 0 {
		s.UpSince = e.upstream.made.Add(time.Duration(since - 1))
	}
	if e.outlier != nil {
		s.Outlier = e.outlier.record.state()
	}
	return s
}

// Adopt makes u continue from the state that TakeState returned in another process. It is
// called before u carries traffic, and after Start. What u has learned since Start counts
// as newer.
func (u *Upstream) Adopt(s State) {
	m := &u.members
	m.mu.Lock()
	m.inherited = make(map[address]EndpointState, len(s.Endpoints))
	for _, e := range s.Endpoints {
		m.inherited[address{e.Network, e.Address}] = e
	}
	for _, e := range u.Endpoints() {
		m.adoptState(e)
	}
	m.mu.Unlock()
	if u.dns != nil && s.Answer != nil {
		u.dns.adopt(*s.Answer) // new endpoints get their states as they join
	}
	// States are not kept for endpoints that join later: an old verdict is no reason to
	// send traffic to an endpoint.
	m.mu.Lock()
	m.inherited = nil
	m.mu.Unlock()
}

// adoptState passes the state of another process on to e, if there is one. m.mu is held.
func (m *membership) adoptState(e *Endpoint) {
	if s, ok := m.inherited[address{e.Network(), e.Address()}]; ok {
		e.adopt(&s)
	}
}

func (e *Endpoint) adopt(s *EndpointState) {
	if s.LastFailure != nil {
		e.failures.adopt(s.LastFailure)
	}
	if s.ReplyNeeded {
		e.replyNeeded.Store(true)
	}
	if s.StreamBroke {
		e.streamBroke.Store(true)
	}
	e.adoptHealth(s.Health, s.LastFailure)
	e.checker.adopt(s.Check)
	e.outlier.adopt(s.Outlier)
	if period := e.upstream.options.SlowStart; period > 0 && time.Since(s.UpSince) < period {
		e.since.Store(int64(s.UpSince.Sub(e.upstream.made)) + 1)
		e.upstream.changed()
	}
	adoptSessions(e.Client(Stream), s.Stream)
	adoptSessions(e.Client(HTTP), s.HTTP)
}

func adoptSessions(c *certs.Client, s *certs.SessionState) {
	if c != nil && s != nil {
		c.AdoptSessions(*s)
	}
}

// adoptHealth sets the health of an endpoint without a health check that was not used yet.
func (e *Endpoint) adoptHealth(health string, last *Failure) {
	if e.checker != nil || e.health.load() != Unknown {
		return
	}
	switch health {
	case Up.String():
		e.health.set(Up, func() { e.notify(Event{Kind: HealthChanged, Health: Up}) })
	case Down.String():
		e.health.set(Down, func() { e.notify(Event{Kind: HealthChanged, Health: Down, Failure: last}) })
	}
}

// adopt records the last failure, unless there is one already.
func (f *failures) adopt(last *Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil {
		f.last = last
	}
}

// state returns the verdict, or nil before the first result.
func (v *verdict) state() *CheckState {
	v.deciding.Lock()
	defer v.deciding.Unlock()
	health := v.health.load()
	if health == Unknown {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return &CheckState{
		Healthy: health == Up, Streak: v.streak,
		Time: v.last.Time, Duration: v.last.Duration, Reason: v.last.Reason, Message: v.last.Message,
	}
}

// adopt continues from the verdict of another process. The last result of this process
// counts as the next result after that verdict: a first result that decided alone must
// not outweigh what the other process knows.
func (c *checker) adopt(s *CheckState) {
	if c == nil || s == nil {
		return
	}
	v := c.verdict
	v.deciding.Lock()
	defer v.deciding.Unlock()
	before := v.health.load()
	health, last := v.adopt(&c.options, s)
	c.applyVerdict(health, health != before, false, last)
}

func (v *verdict) adopt(o *CheckOptions, s *CheckState) (Health, Check) {
	v.mu.Lock()
	defer v.mu.Unlock()
	own, health := v.last, Down
	if s.Healthy {
		health = Up
	}
	v.streak = s.Streak
	v.last = Check{Time: s.Time, Duration: s.Duration, Reason: s.Reason, Message: s.Message}
	if !own.Time.IsZero() {
		v.last = own
		health, v.streak = o.after(health, v.streak, own)
	}
	return health, v.last
}

// An OutlierState holds an endpoint's recent results and its ejection.
type OutlierState struct {
	EjectedUntil time.Time `json:"ejected_until,omitzero"` // zero: not ejected
	Reason       string    `json:"reason,omitempty"`

	Failures   int          `json:"failures,omitempty"`   // in a row
	Handshakes int          `json:"handshakes,omitempty"` // failed ones in a row
	Window     *windowState `json:"window,omitempty"`

	Times  int           `json:"times,omitempty"` // ejections in close succession
	Lasted time.Duration `json:"lasted,omitempty"`
	Ended  time.Time     `json:"ended,omitzero"` // end of the last ejection
}

// A windowState holds the used parts of a window.
type windowState struct {
	Width time.Duration `json:"width"`
	Parts []windowPart  `json:"parts"`
}

type windowPart struct {
	Age    int64 `json:"age,omitempty"` // in parts before the current one
	All    int   `json:"all"`
	Failed int   `json:"failed,omitempty"`
}

func (r *record) state() *OutlierState {
	now := time.Since(r.began)
	out := time.Duration(r.ejectedUntil.Load())
	s := &OutlierState{Failures: int(r.failures.Load()), Handshakes: int(r.handshakes.Load())}
	r.mu.Lock()
	defer r.mu.Unlock()
	ended := r.ended
	if out > now {
		s.EjectedUntil, s.Reason = r.began.Add(out), r.reason
	} else if out > 0 {
		ended = out
	}
	s.Times, s.Lasted = r.times, r.lasted
	if r.times > 0 {
		s.Ended = r.began.Add(ended)
	}
	s.Window = r.window.state(now)
	return s
}

func (w *window) state(now time.Duration) *windowState {
	if w.width == 0 {
		return nil
	}
	s, current := &windowState{Width: w.width}, w.index(now)
	for _, p := range w.parts {
		if age := current - p.at; p.at != 0 && age < windowParts {
			s.Parts = append(s.Parts, windowPart{age, p.all, p.failed})
		}
	}
	return s
}

// adopt continues from the results and the ejection of another process.
func (o *outlier) adopt(s *OutlierState) {
	if o == nil || s == nil {
		return
	}
	left := o.tryAdopt(s)
	if left == 0 {
		return
	}
	e := o.endpoint
	event := Failure{Message: fmt.Sprintf("%s; ejected by the previous process, for another %v", s.Reason, left.Round(time.Millisecond)), Time: time.Now()}
	e.upstream.log.Warn("endpoint ejected", "endpoint", e.Address(), "error", event.Message)
	e.notify(Event{Kind: Ejected, Health: e.Health(), Failure: &event})
	e.changed(false)
}

// tryAdopt returns how long the endpoint stays ejected; 0: it is not ejected by s.
func (o *outlier) tryAdopt(s *OutlierState) (left time.Duration) {
	o.coordinator().ejecting.Lock()
	defer o.coordinator().ejecting.Unlock()
	if o.stopped || o.record.isEjected() {
		return 0
	}
	o.record.adopt(s)
	// The bound holds even if the clock was set back.
	left = min(time.Until(s.EjectedUntil), o.options.Max)
	if left <= 0 {
		return 0
	}
	o.record.ejectedUntil.Store(int64(time.Since(o.record.began) + left))
	o.arm(left)
	return left
}

func (r *record) adopt(s *OutlierState) {
	r.failures.Add(int32(s.Failures))
	r.handshakes.Add(int32(s.Handshakes))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.times, r.lasted, r.reason = s.Times, s.Lasted, s.Reason
	if !s.Ended.IsZero() {
		r.ended = s.Ended.Sub(r.began)
	}
	r.window.adopt(s.Window, time.Since(r.began))
}

// adopt replaces the window by that of another process.
func (w *window) adopt(s *windowState, now time.Duration) {
	if s == nil || s.Width <= 0 {
		return
	}
	*w = window{width: s.Width}
	w.now = w.index(now)
	for _, p := range s.Parts {
		if p.Age < 0 || p.Age >= windowParts {
			continue
		}
		at := w.now - p.Age
		to := &w.parts[at%windowParts]
		to.at, to.all, to.failed = at, p.All, p.Failed
	}
}
