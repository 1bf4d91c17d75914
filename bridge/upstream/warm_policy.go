package upstream

import "time"

const (
	// maxFills is how many connections to one endpoint are made at once if more
	// than half are missing, and leisurelyFills if not.
	maxFills       = 8
	leisurelyFills = 1

	// lull is how long after a client has come those that were taken are
	// replaced, unless more than half or mostShort are missing, or one has been
	// for longestLull: a handshake takes the processor from those who are being
	// served, and several in a row do so to fewer.
	lull        = 10 * time.Millisecond
	longestLull = 50 * time.Millisecond
	mostShort   = 12
)

// A warmPolicy decides when a warmPool makes connections, and how many at once. The
// pool's lock guards it.
type warmPolicy struct {
	size      int
	making    int       // connections being made
	proven    bool      // one was made
	refilling bool      // until none is missing any more
	taken     time.Time // when the last was
	short     time.Time // since when some that were taken are missing; zero: none is
	failing   backoff   // connections that could not be made
	closing   backoff   // connections that were made, and closed by the peer
}

func newWarmPolicy(size int) warmPolicy {
	return warmPolicy{
		size:    size,
		failing: backoff{first: time.Second, most: 30 * time.Second},
		closing: backoff{first: time.Second, most: time.Minute},
	}
}

// nothingToDo is for how long a policy waits that has no reason to make a connection.
const nothingToDo = time.Hour

// plan returns how many connections are to be made now, which count as being made from
// then on, and after what time there may be more to do. Have is how many there are.
// Each that is made signals the pool, so that the rest follows.
func (p *warmPolicy) plan(now time.Time, have int, down bool, scarce func() bool) (fill int, next time.Duration) {
	want := p.size
	if down || !p.proven {
		want = 1 // to see whether the endpoint is up
	}
	missing := want - have // one that is being made is missing until it is ready
	want = missing - p.making
	if want <= 0 {
		p.enough()
		return 0, nothingToDo
	}
	if until := p.notBefore(down); now.Before(until) {
		return 0, until.Sub(now)
	}
	hurry := 2*missing > p.size
	if until := p.afterLull(); !p.refilling && !hurry && missing < mostShort && now.Before(until) {
		return 0, until.Sub(now)
	}
	if scarce() {
		return 0, lookFresh
	}
	atOnce := leisurelyFills
	if hurry {
		atOnce = maxFills
	}
	fill = max(min(want, atOnce-p.making), 0)
	p.refilling = true
	p.making += fill
	return fill, nothingToDo
}

// enough says that no connection is missing, or that none is to be made.
func (p *warmPolicy) enough() { p.short, p.refilling = time.Time{}, false }

// noteUsed says that a client was given a connection.
func (p *warmPolicy) noteUsed(now time.Time) {
	p.closing.ease(p.size)
	p.taken = now
	if p.short.IsZero() {
		p.short = now
	}
}

// noteMade says that the endpoint takes connections.
func (p *warmPolicy) noteMade() {
	p.failing.clear()
	p.proven = true
}

// afterLull returns when those that were taken are to be replaced if there is no
// hurry.
func (p *warmPolicy) afterLull() time.Time {
	if p.short.IsZero() {
		return time.Time{}
	}
	quiet, latest := p.taken.Add(lull), p.short.Add(longestLull)
	if quiet.Before(latest) {
		return quiet
	}
	return latest
}

// notBefore returns when the next connection may be made.
func (p *warmPolicy) notBefore(down bool) time.Time {
	if !down {
		// Somebody else has found the endpoint up. But where only some attempts
		// fail, those here must not follow each other as fast as others succeed.
		p.failing.cut()
	}
	if p.closing.until.After(p.failing.until) {
		return p.closing.until
	}
	return p.failing.until
}
