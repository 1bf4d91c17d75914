package upstream

import "time"

const (
	// maxFills is how many connections to one endpoint are made at once if more
	// than half are missing; otherwise it is slowFills.
	maxFills  = 8
	slowFills = 1

	// quietTime is the pause after a client's arrival before taken connections are
	// replaced, unless more than half or mostShort are missing, or some have been
	// for longestQuietTime. Handshakes compete for the processor with clients being
	// served, and batching them disturbs fewer clients.
	quietTime        = 10 * time.Millisecond
	longestQuietTime = 50 * time.Millisecond
	mostShort        = 12
)

// A warmPolicy decides when a warmPool makes connections, and how many at
// once. The pool's lock guards it.
type warmPolicy struct {
	size      int
	dialing   int       // connections being made
	proven    bool      // at least one connection was made
	refilling bool      // until the pool is full
	taken     time.Time // time of the last take
	short     time.Time // since when taken connections are missing; zero: none
	failing   backoff   // connections that could not be made
	closing   backoff   // connections that the peer closed after they were made
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

// plan returns how many connections to make now, which then count as being
// made, and when to call it again. Have is the current number. Each completed
// connection signals the pool, so that the rest follows.
func (p *warmPolicy) plan(now time.Time, have int, down bool, scarce func() bool) (fill int, next time.Duration) {
	want := p.size
	if down || !p.proven {
		want = 1 // to find out whether the endpoint is up
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

// enough records that no connection is missing or to be made.
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
