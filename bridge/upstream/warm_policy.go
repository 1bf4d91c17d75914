package upstream

import "time"

const (
	// maxFills bounds the concurrent dials to one endpoint if more than half of
	// the connections are missing. Otherwise slowFills does.
	maxFills  = 8
	slowFills = 1

	// quietTime is the pause after a client's arrival before taken connections are
	// replaced, unless more than half or mostShort are missing, or some have been
	// missing for longestQuietTime. Handshakes compete with clients for the
	// processor, and batches of handshakes disturb fewer clients.
	quietTime        = 10 * time.Millisecond
	longestQuietTime = 50 * time.Millisecond
	mostShort        = 12
)

// A warmPolicy decides when a warmPool dials connections, and how many at once.
// The pool's lock guards it.
type warmPolicy struct {
	size      int
	dialing   int       // dials in progress
	proven    bool      // at least one dial succeeded
	refilling bool      // until the pool is full
	taken     time.Time // time of the last take
	short     time.Time // since when taken connections are missing, or zero
	failing   backoff   // backs off after failed dials
	closing   backoff   // backs off after connections that the peer closed
}

func newWarmPolicy(size int) warmPolicy {
	return warmPolicy{
		size:    size,
		failing: backoff{first: time.Second, most: 30 * time.Second},
		closing: backoff{first: time.Second, most: time.Minute},
	}
}

// nothingToDo is how long a policy without work waits.
const nothingToDo = time.Hour

// plan returns how many connections to dial now, and when to call it again. It
// counts the returned number in dialing. Have is the current number of
// connections. Each completed connection signals the pool, so that the rest
// follows.
func (p *warmPolicy) plan(now time.Time, have int, down bool, scarce func() bool) (fill int, next time.Duration) {
	want := p.size
	if down || !p.proven {
		want = 1 // one dial, to test whether the endpoint is up
	}
	missing := want - have // a connection counts as missing until it is ready
	want = missing - p.dialing
	if want <= 0 {
		p.enough()
		return 0, nothingToDo
	}
	if until := p.notBefore(down); now.Before(until) {
		return 0, until.Sub(now)
	}
	urgent := 2*missing > p.size
	if until := p.afterQuietTime(); !p.refilling && !urgent && missing < mostShort && now.Before(until) {
		return 0, until.Sub(now)
	}
	if scarce() {
		return 0, lookFresh
	}
	atOnce := slowFills
	if urgent {
		atOnce = maxFills
	}
	fill = max(min(want, atOnce-p.dialing), 0)
	p.refilling = true
	p.dialing += fill
	return fill, nothingToDo
}

// enough records that no connection is missing.
func (p *warmPolicy) enough() { p.short, p.refilling = time.Time{}, false }

// noteUsed records that a client received a connection.
func (p *warmPolicy) noteUsed(now time.Time) {
	p.closing.shrink(p.size)
	p.taken = now
	if p.short.IsZero() {
		p.short = now
	}
}

// noteMade records that the endpoint accepts connections.
func (p *warmPolicy) noteMade() {
	p.failing.clear()
	p.proven = true
}

// afterQuietTime returns when taken connections are replaced unless that is urgent.
func (p *warmPolicy) afterQuietTime() time.Time {
	if p.short.IsZero() {
		return time.Time{}
	}
	quiet, latest := p.taken.Add(quietTime), p.short.Add(longestQuietTime)
	if quiet.Before(latest) {
		return quiet
	}
	return latest
}

// notBefore returns the earliest time for the next connection.
func (p *warmPolicy) notBefore(down bool) time.Time {
	if !down {
		// Other traffic found the endpoint up. But if only some attempts fail, retries
		// here must not be as fast as other attempts succeed.
		p.failing.cut()
	}
	if p.closing.until.After(p.failing.until) {
		return p.closing.until
	}
	return p.failing.until
}
