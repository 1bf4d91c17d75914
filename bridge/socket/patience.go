package socket

import (
	"errors"
	"os"
	"sync"
	"time"
)

// ErrStuck is what a write fails with that waited as long as it may for a peer that
// took nothing. Nothing can be written from then on.
var ErrStuck = errors.New("socket: the peer took nothing of what it was sent for too long")

// looks is how often a limit's time is divided to look for progress: a limit is kept
// to within one part in that many.
const looks = 32

// A patience bounds how long the writes of a Direct wait while the peer takes
// nothing. Every byte that the peer's kernel acknowledges restarts the time: a reader
// that is slow but steady is never cut off. The kernel wakes a writer only when a
// good part of its buffer is free, so the writes themselves cannot tell.
//
// A timer runs only while a write waits.
type patience struct {
	mu     sync.Mutex
	limit  time.Duration // 0: none
	timer  *time.Timer   // reused; nil until it is needed
	armed  bool          // a write waits
	since  time.Time     // when progress was seen last
	seen   int64         // what progress was then
	passed bool          // the limit
}

// LimitWait bounds how long a write waits while the peer takes nothing; then it fails
// with ErrStuck. 0: no bound. It has an effect only on kernel sockets, and may be
// called at any time.
func (d *Direct) LimitWait(limit time.Duration) {
	d.patience.mu.Lock()
	defer d.patience.mu.Unlock()
	d.patience.limit = limit
}

// LimitWait is Direct's, for s. It has no effect if another connection lies between s
// and the kernel's.
func (s *Socket) LimitWait(limit time.Duration) {
	if d := s.toDirect(); d != nil {
		d.LimitWait(limit)
	}
}

// Waits reports whether a write waits for the peer.
func (d *Direct) Waits() bool {
	d.patience.mu.Lock()
	defer d.patience.mu.Unlock()
	return d.patience.armed
}

// wait is called before a write waits.
func (d *Direct) wait() {
	p := &d.patience
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit <= 0 || p.armed {
		return
	}
	p.armed, p.since, p.seen = true, time.Now(), -1
	if p.timer == nil {
		p.timer = time.AfterFunc(p.limit/looks, d.look)
	} else {
		p.timer.Reset(p.limit / looks)
	}
}

// waited is called when a write is over that may have waited. It returns the write's
// error.
func (d *Direct) waited(err error) error {
	p := &d.patience
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.armed {
		p.armed = false
		p.timer.Stop()
	}
	if p.passed && errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrStuck
	}
	return err
}

// look looks whether the peer took anything.
func (d *Direct) look() {
	p := &d.patience
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.armed || p.passed {
		return
	}
	now := time.Now()
	if progress := d.progress(); progress != p.seen {
		p.seen, p.since = progress, now
	} else if p.limit > 0 && now.Sub(p.since) >= p.limit {
		p.passed = true
		_ = d.conn.SetWriteDeadline(time.Unix(1, 0)) // fails only if it is closed, and then so does the write
		return
	}
	p.timer.Reset(max(p.limit/looks, time.Millisecond))
}

// progress returns how much the peer has taken of what was written, or at least a
// number that changes when it takes something.
func (d *Direct) progress() (taken int64) {
	taken = d.written.Load()
	_ = d.raw.Control(func(fd uintptr) { taken -= int64(Undelivered(int(fd))) }) // fails only if it is closed
	return taken
}
