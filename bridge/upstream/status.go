package upstream

import (
	"crypto/x509"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/drawbridge-gateway/drawbridge/bridge/latency"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// Health is the result of an endpoint's health check or, without a health
// check, of the last attempt to connect.
type Health int32

const (
	Unknown Health = iota // no check or attempt is complete
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

// Load is the current load of an Upstream.
type Load struct {
	InFlight uint64 // Turns that have an endpoint now
	Pending  uint64 // Turns that wait for room

	Overloaded uint64 // Turns rejected by a limit since the Upstream was made
}

// Load returns the current load.
func (u *Upstream) Load() Load {
	return Load{
		InFlight:   uint64(u.inProgress.n.Load()),
		Pending:    uint64(u.queue.waiting.Load()),
		Overloaded: u.overloaded.Load(),
	}
}

// EndpointStatus describes one endpoint since its Upstream was created.
type EndpointStatus struct {
	Of               *Endpoint
	Network, Address string
	Backup, Draining bool
	Left             bool // like Endpoint.Left; such an endpoint is also draining

	Available   bool   // the endpoint takes traffic
	Unavailable string // why the endpoint takes no traffic

	EjectedUntil time.Time // zero: not ejected
	Ejections    uint64
	Check        *Check // nil: there is no health check

	Health Health
	Open   uint64 // open connections, including warm ones and those still in the handshake
	Made   uint64 // connections made, including warm ones

	InFlight uint64 // Turns at the endpoint now
	Weight   int    // at least 1

	Requests                          uint64 // requests counted by NoteRequest
	HandshakesFull, HandshakesResumed uint64
	Full                              map[certs.FullReason]uint64 // by reason
	Reported                          map[certs.Reason]uint64     // failures that VerifyReportOnly ignored
	Connects, Handshakes              Timing                      // including failed attempts
	Failures                          map[certs.Reason]uint64
	LastFailure                       *Failure            // nil: no failure
	PeerChain                         []*x509.Certificate // the chain last presented, even if rejected; nil: none so far
	PeerCertificate                   *certs.Info         // describes PeerChain
	VerifiedBy                        []certs.AnchorUse   // the latest first; includes replaced Upstreams
	Warm                              *Warm               // nil: no warm connections
}

// Warm describes the warm connections to an endpoint.
type Warm struct {
	Size, Ready uint64 // configured and current number

	Used    uint64 // handed out
	Missed  uint64 // requested while none was ready
	Expired uint64 // closed unused, because of their age or a limit
	Closed  uint64 // closed unused because the peer closed them or sent data first
}

// A Failure is a failed attempt to connect.
type Failure struct {
	Reason  certs.Reason `json:"reason"`
	Message string       `json:"message"` // printable, at most about 500 bytes
	Time    time.Time    `json:"time"`
}

// Timing counts an operation and its total duration.
type Timing struct {
	Count uint64
	Total time.Duration
}

func (e *Endpoint) status() EndpointStatus {
	s := e.countsNow()
	var anchors []*certs.AnchorLog
	for _, c := range e.options.clients() {
		anchors = append(anchors, c.Anchors())
	}
	s.VerifiedBy = certs.AnchorUses(anchors...)
	if chain := e.counts.presented.Load(); chain != nil && len(*chain) > 0 {
		info := certs.Describe(*chain)
		s.PeerCertificate = &info
	}
	return s
}

// countsNow is status without the slow fields VerifiedBy and PeerCertificate.
func (e *Endpoint) countsNow() EndpointStatus {
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
		InFlight:          uint64(e.inProgress.n.Load()),
		Weight:            int(e.weight.Load()),
		Requests:          e.counts.requests.Load(),
		HandshakesFull:    e.counts.full.Load(),
		HandshakesResumed: e.counts.resumed.Load(),
		Connects:          e.counts.connects.load(),
		Handshakes:        e.counts.handshakes.load(),
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
		s.PeerChain = *chain
	}
	return s
}

// Latencies records how long the endpoints of one upstream take, in total. It
// outlives the Upstreams of single revisions, which share it. The zero value
// is ready for use.
type Latencies struct {
	Connect   latency.Histogram // including failed attempts
	Handshake latency.Histogram // TLS handshakes, including failed ones
	Head      latency.Histogram // from when a request has a connection until its response's head
}

// counters count the connections to one endpoint.
type counters struct {
	open                 atomic.Int64
	made                 atomic.Uint64
	requests             atomic.Uint64
	full, resumed        atomic.Uint64 // handshakes
	connects, handshakes timing
	presented            atomic.Pointer[[]*x509.Certificate] // leaf first
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

// failures counts an endpoint's failures by reason, and decides which to log
// and report: an endpoint that is down under load fails thousands of times a
// second for the same reason.
type failures struct {
	mu       sync.Mutex
	byReason map[certs.Reason]*failureCount
	last     *Failure // immutable
}

type failureCount struct {
	total, unreported uint64
	reported          time.Time
}

// add counts a failure. If it is due to be logged and reported, suppressed is
// the number of earlier failures for the same reason that were not logged.
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
	if !c.reported.IsZero() && now.Sub(c.reported) < reportEvery {
		c.unreported++
		return failure, 0, false
	}
	suppressed, c.unreported, c.reported = c.unreported, 0, now
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

// printable returns an error's text, bounded and with control characters
// escaped, because the peer may have chosen parts of it.
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
