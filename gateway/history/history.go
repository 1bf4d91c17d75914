// Package history keeps the latest values of a sequence, for readers that follow it at
// their own pace.
//
// The Log owns the values. A reader holds only its position, so a slow reader costs no
// memory and delays no other. Once the log has dropped values after its position, the
// reader gets ErrBehind.
package history

import (
	"errors"
	"sync"
)

var (
	// ErrBehind reports that the values after the position are no longer stored.
	ErrBehind = errors.New("no longer kept")

	// ErrClosed reports that the log has no further values and is closed.
	ErrClosed = errors.New("the log is closed")
)

// A Log keeps the last values. Positions of consecutive values differ by one.
// Its methods may be called concurrently.
type Log[T any] struct {
	maxEntries, maxBytes int

	mu      sync.Mutex
	entries []entry[T]
	last    int64 // position of the last value that was appended
	bytes   int
	closed  bool
	changed chan struct{} // closed when a value is appended or the log is closed
}

type entry[T any] struct {
	value T
	size  int
}

// New returns an empty log that stores at most maxEntries values of at most maxBytes in
// total. The position of its first value will be after+1.
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
		l.entries[0] = entry[T]{} // let the garbage collector free the value
		l.entries = l.entries[1:]
	}
	l.wake()
}

// After returns values that follow a position, possibly not all of them. If no value
// follows, changed is closed once one does. The error is ErrBehind or, after the last
// value of a closed log, ErrClosed.
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

// Bounds returns the position before the oldest stored value, and the position of the
// last value.
func (l *Log[T]) Bounds() (before, last int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last - int64(len(l.entries)), l.last
}

// Changed returns a channel that is closed when the next value is appended or the log is
// closed.
func (l *Log[T]) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Restart drops every value: the next one gets the position after last. Readers before that
// position get ErrBehind.
func (l *Log[T]) Restart(last int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.entries, l.bytes, l.last = nil, 0, last
	l.wake()
}

// Close closes the log: readers get ErrClosed after the last value.
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
