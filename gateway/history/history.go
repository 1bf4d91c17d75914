// Package history keeps the last of what happened, for readers who follow it at
// their own pace.
//
// A Log belongs to whoever appends. A reader holds nothing but its position, so a
// slow one costs no memory and delays nobody: once its position is no longer
// kept, it is told so.
package history

import (
	"errors"
	"sync"
)

var (
	// ErrBehind reports that what follows the position is no longer kept.
	ErrBehind = errors.New("no longer kept")

	// ErrClosed reports that nothing more will come.
	ErrClosed = errors.New("the log is closed")
)

// A Log keeps the last values, each with a position: one more than that of the
// value before. Its methods may be called concurrently.
type Log[T any] struct {
	maxEntries, maxBytes int

	mu      sync.Mutex
	entries []entry[T]
	last    int64 // position of the last value that was appended
	bytes   int
	closed  bool
	changed chan struct{} // closed when a value comes, or the log is closed
}

type entry[T any] struct {
	value T
	size  int
}

// New returns an empty log that keeps so many values, of so many bytes together.
// The position of its first value will be after+1.
func New[T any](maxEntries, maxBytes int, after int64) *Log[T] {
	return &Log[T]{maxEntries: maxEntries, maxBytes: maxBytes, last: after, changed: make(chan struct{})}
}

// Append adds the value that next returns for its position, with its size in
// bytes. It never blocks.
func (l *Log[T]) Append(next func(position int64) (T, int)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.last++
	value, size := next(l.last)
	l.entries = append(l.entries, entry[T]{value, size})
	l.bytes += size
	for len(l.entries) > l.maxEntries || l.bytes > l.maxBytes && len(l.entries) > 1 {
		l.bytes -= l.entries[0].size
		l.entries[0] = entry[T]{} // or the array would hold on to it
		l.entries = l.entries[1:]
	}
	l.wake()
}

// After returns the values that follow a position, at most some of them. If
// there are none, changed is closed once there are. The error is ErrBehind or,
// once all were returned, ErrClosed.
func (l *Log[T]) After(position int64) (values []T, changed <-chan struct{}, err error) {
	const most = 64
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.last - position // how many values follow
	switch {
	case n > int64(len(l.entries)):
		return nil, nil, ErrBehind
	case n <= 0 && l.closed:
		return nil, nil, ErrClosed
	case n <= 0:
		return nil, l.changed, nil
	}
	from := l.entries[len(l.entries)-int(n):]
	for _, e := range from[:min(len(from), most)] {
		values = append(values, e.value)
	}
	return values, nil, nil
}

// Bounds returns the position before the oldest value that is kept, and that of
// the last.
func (l *Log[T]) Bounds() (before, last int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last - int64(len(l.entries)), l.last
}

// Changed returns a channel that is closed when the next value comes, or the log
// is closed.
func (l *Log[T]) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Close ends the log: readers are told once they have read all of it.
func (l *Log[T]) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		l.wake()
	}
}

func (l *Log[T]) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
	if l.closed {
		close(l.changed)
	}
}
