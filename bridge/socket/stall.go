package socket

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrStuck is the error of a write that waited longer than LimitWait allows for a peer
// that accepted no byte. All later writes fail.
var ErrStuck = errors.New("socket: the peer accepted no bytes for too long")

// looks is how often a stallTimer checks for progress within its limit. So it reports a
// stuck peer late by at most 1/looks of the limit.
const looks = 32

// A stallTimer bounds how long the writes of a Direct wait while the peer accepts no
// bytes. Every byte that the peer's kernel acknowledges restarts the time, so a slow,
// steady reader is never cut off. Writes alone cannot show that progress: the kernel
// wakes a writer only when a good part of its buffer is free.
//
// The timer runs only while a write waits.
type stallTimer struct {
	mu           sync.Mutex
	limit        time.Duration // 0: no limit
	timer        *time.Timer   // reused; nil until first needed
	waiting      bool          // a write is waiting
	since        time.Time     // when the peer last made progress
	lastProgress int64         // the value of progress at that time
	expired      bool          // the limit has expired
	onExpire     func()        // called when the limit expires; nil: a write waits itself
}

// LimitWait bounds how long a write waits while the peer accepts no bytes; then the
// write fails with ErrStuck. 0 means no bound. It affects only kernel sockets, and may
// be called at any time.
func (d *Direct) LimitWait(limit time.Duration) {
	d.stall.mu.Lock()
	defer d.stall.mu.Unlock()
	d.stall.limit = limit
}

// LimitWait is Direct.LimitWait for s. It has no effect if another connection lies
// between s and the kernel's socket.
func (s *Socket) LimitWait(limit time.Duration) {
	if d := s.sender.toDirect(); d != nil {
		d.LimitWait(limit)
	}
}

// IsWaiting reports whether a write is waiting for the peer.
func (d *Direct) IsWaiting() bool {
	d.stall.mu.Lock()
	defer d.stall.mu.Unlock()
	return d.stall.waiting
}

// wait starts the timer, before a write waits.
func (d *Direct) wait() {
	p := &d.stall
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit <= 0 || p.waiting {
		return
	}
	p.waiting, p.since, p.lastProgress = true, time.Now(), -1
	if p.timer == nil {
		p.timer = time.AfterFunc(p.limit/looks, d.look)
	} else {
		p.timer.Reset(p.limit / looks)
	}
}

// BeginWait starts the timer for a caller that waits for room itself, after TryWrite. The
// next write ends the wait. If the limit passes before, that write fails with ErrStuck,
// and expired is called, which must not block.
func (d *Direct) BeginWait(expired func()) {
	d.waiting = true
	d.stall.mu.Lock()
	d.stall.onExpire = expired
	d.stall.mu.Unlock()
	d.wait()
}

// waited stops the timer after a write that may have waited. It returns the write's
// error.
func (d *Direct) waited(err error) error {
	p := &d.stall
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting {
		p.waiting, p.onExpire = false, nil
		p.timer.Stop()
	}
	if p.expired && errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrStuck
	}
	return err
}

// look checks whether the peer has made progress.
func (d *Direct) look() {
	p := &d.stall
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.waiting || p.expired {
		return
	}
	now := time.Now()
	switch progress := d.progress(); {
	case progress != p.lastProgress:
		p.lastProgress, p.since = progress, now
	case p.limit <= 0 || now.Sub(p.since) < p.limit:
	default:
		if room, _ := d.room(); room {
			p.since = now // the peer is not stuck: on a busy machine the writer has not run yet
			break
		}
		p.expired = true
		_ = d.conn.SetWriteDeadline(time.Unix(1, 0)) // fails only if the socket is closed, and then the write fails too
		if p.onExpire != nil {
			p.onExpire()
		}
		return
	}
	p.timer.Reset(max(p.limit/looks, time.Millisecond))
}

// isStuck reports whether all writes fail with ErrStuck.
func (d *Direct) isStuck() bool {
	d.stall.mu.Lock()
	defer d.stall.mu.Unlock()
	return d.stall.expired
}

// room reports whether the kernel accepts bytes. It fails if the socket is closed.
func (d *Direct) room() (room bool, err error) {
	err = d.raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(fds, 0)
		room = err == nil && n > 0
	})
	return room, err
}

// progress returns the number of bytes that the peer has acknowledged, or at least a
// number that changes with each acknowledgment.
func (d *Direct) progress() (taken int64) {
	taken = d.written.Load()
	_ = d.raw.Control(func(fd uintptr) { taken -= int64(Undelivered(int(fd))) }) // fails only if the socket is closed
	return taken
}
