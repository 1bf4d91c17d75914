package upstream

import (
	"crypto/x509"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// Health is what the health check of an endpoint says or, where there is none,
// what the last attempt to connect to it came to.
type Health int32

const (
	Unknown Health = iota // none was answered or made
	Up
	Down
)

func (h Health) String() string {
	switch h {
	case Up:
		return "up"
	case Down:
		return "down"
	}
	return "unknown"
}

// Load is what an Upstream has to do.
type Load struct {
	InFlight uint64 // Turns that are at an endpoint now
	Pending  uint64 // those that wait until a limit allows them

	Overloaded uint64 // those that a limit has refused since the Upstream was made
}

// Load tells what there is to do.
func (u *Upstream) Load() Load {
	return Load{
		InFlight:   uint64(u.underWay.n.Load()),
		Pending:    uint64(u.queue.waiting.Load()),
		Overloaded: u.overloaded.Load(),
	}
}

// EndpointStatus is what became of one endpoint since its Upstream was made.
type EndpointStatus struct {
	Of               *Endpoint
	Network, Address string
	Backup, Draining bool
	Left             bool // as Endpoint.Left; then it is draining too

	Available   bool   // it takes traffic
	Unavailable string // why it does not, in words

	EjectedUntil time.Time // zero: it is not ejected
	Ejections    uint64
	Check        *Check // nil: there is no health check

	Health Health
	Open   uint64 // connections open now, warm ones and those still shaking hands included
	Made   uint64 // connections made, warm ones included

	InFlight uint64 // Turns that are there now
	Weight   int    // at least 1

	Requests                          uint64 // as counted by NoteRequest
	HandshakesFull, HandshakesResumed uint64
	Full                              map[certs.FullReason]uint64 // why handshakes were full
	Reported                          map[certs.Reason]uint64     // what VerifyReportOnly let pass
	Connects, Handshakes              Timing                      // attempts, failed ones included
	Failures                          map[certs.Reason]uint64
	LastFailure                       *Failure    // nil: none
	PeerCertificate                   *certs.Info // last presented, be it that it was refused; nil: none
	Warm                              *Warm       // nil: none is kept
}

// Warm is what became of the connections that are kept ready to an endpoint.
type Warm struct {
	Size, Ready uint64 // how many are to be kept, and are

	Used    uint64 // given out
	Missed  uint64 // asked for while none was ready
	Expired uint64 // closed unused, because of their age or because a limit asked for their place
	Closed  uint64 // closed unused by the peer, or that spoke first
}

// A Failure is an attempt to connect that failed.
type Failure struct {
	Reason  certs.Reason
	Message string // printable, at most about 500 bytes
	Time    time.Time
}

// Timing is how often something was done and how long that took in all.
type Timing struct {
	Count uint64
	Total time.Duration
}

func (e *Endpoint) status() EndpointStatus {
	s := EndpointStatus{
		Network:           e.Network(),
		Address:           e.Address(),
		Of:                e,
		Backup:            e.Backup(),
		Draining:          e.Draining(),
		Left:              e.Left(),
		Health:            e.health.load(),
		Open:              uint64(max(e.counts.open.Load(), 0)),
		Made:              e.counts.made.Load(),
		InFlight:          uint64(e.underWay.n.Load()),
		Weight:            int(e.weight.Load()),
		Requests:          e.counts.requests.Load(),
		HandshakesFull:    e.counts.full.Load(),
		HandshakesResumed: e.counts.resumed.Load(),
		Connects:          e.counts.connects.load(),
		Handshakes:        e.counts.shakes.load(),
		Full:              make(map[certs.FullReason]uint64),
		Reported:          make(map[certs.Reason]uint64),
	}
	for _, c := range e.options.clients() {
		stats := c.SessionStats()
		for reason, n := range stats.Full {
			s.Full[reason] += n
		}
		for reason, n := range stats.Reported {
			s.Reported[reason] += n
		}
	}
	s.Failures, s.LastFailure = e.failures.load()
	s.Warm = e.warm.status()
	s.Check = e.checker.status()
	s.Unavailable = e.Unavailable()
	s.Available = s.Unavailable == ""
	if e.outlier != nil {
		s.EjectedUntil, _ = e.ejected()
		s.Ejections = e.outlier.ejections.Load()
	}
	if chain := e.counts.presented.Load(); chain != nil && len(*chain) > 0 {
		info := certs.Describe(*chain)
		s.PeerCertificate = &info
	}
	return s
}

// counters count the connections to one endpoint.
type counters struct {
	open             atomic.Int64
	made             atomic.Uint64
	requests         atomic.Uint64
	full, resumed    atomic.Uint64 // handshakes
	connects, shakes timing
	presented        atomic.Pointer[[]*x509.Certificate] // the leaf first
}

type timing struct {
	count, nanoseconds atomic.Uint64
}

func (t *timing) add(d time.Duration) {
	t.count.Add(1)
	t.nanoseconds.Add(uint64(d))
}

func (t *timing) load() Timing {
	return Timing{Count: t.count.Load(), Total: time.Duration(t.nanoseconds.Load())}
}

// failures counts an endpoint's failures by reason, and says which are to be
// logged and told: an endpoint that is down under load fails thousands of times a
// second, always for the same reason.
type failures struct {
	mu       sync.Mutex
	byReason map[certs.Reason]*failureCount
	last     *Failure // immutable
}

type failureCount struct {
	total, untold uint64
	told          time.Time
}

// add counts a failure. If it is due to be logged and told, suppressed is how
// many for the same reason were not since the last that was.
func (f *failures) add(r certs.Reason, message string) (failure *Failure, suppressed uint64, due bool) {
	now := time.Now()
	failure = &Failure{Reason: r, Message: message, Time: now}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = failure
	c := f.byReason[r]
	if c == nil {
		if f.byReason == nil {
			f.byReason = make(map[certs.Reason]*failureCount)
		}
		c = &failureCount{}
		f.byReason[r] = c
	}
	c.total++
	if !c.told.IsZero() && now.Sub(c.told) < tellEvery {
		c.untold++
		return failure, 0, false
	}
	suppressed, c.untold, c.told = c.untold, 0, now
	return failure, suppressed, true
}

func (f *failures) load() (map[certs.Reason]uint64, *Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := make(map[certs.Reason]uint64, len(f.byReason))
	for r, c := range f.byReason {
		counts[r] = c.total
	}
	return counts, f.last
}

// printable returns an error's text bounded and with control characters
// escaped: parts of it may have been chosen by the peer.
func printable(text string) string {
	const most = 500
	var b strings.Builder
	for _, r := range text {
		if b.Len() >= most {
			b.WriteString("…")
			break
		}
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}
