package http2

import "time"

// A budget is what a peer may cost before it is told to calm down. Work that
// does some good fills it up again, and so does time.
type budget struct {
	left, full int
	perSecond  int
	filled     int64 // when time was last reckoned with
}

// spend takes n off, and reports whether that much was left. now is in
// nanoseconds.
func (b *budget) spend(n int, now func() int64) bool {
	if b.left -= n; b.left >= 0 {
		return true
	}
	t := now()
	b.earn(int(float64(t-b.filled) / float64(time.Second) * float64(b.perSecond)))
	b.filled = t
	return b.left >= 0
}

// earn adds n, up to what is full.
func (b *budget) earn(n int) { b.left = min(b.left+n, b.full) }

// newUnused returns the budget for streams that came to nothing by the peer's
// doing: it reset them (CVE-2023-44487), or made this side reset them
// (CVE-2025-8671), or opened more than it may. Each costs 1, and one that
// comes to its end is worth 1.
func newUnused() budget { return budget{left: 500, full: 500, perSecond: 33} }

// newControls returns the budget for frames that carry nothing: PING,
// SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, unknown ones, and any on
// streams that are closed. Each costs 1 or more; what each side carries of
// bodies and heads is worth some, for windows and pings are part of that.
func newControls() budget { return budget{left: 10000, full: 10000, perSecond: 200} }

// worth returns how many control frames the transport of n bytes of a body
// excuses.
func worth(n int) int { return 2 + n>>10 }
