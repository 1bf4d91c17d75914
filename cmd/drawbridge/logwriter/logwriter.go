// Package logwriter writes a log to an output that may block, without blocking its
// callers.
package logwriter

import (
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// logBuffer is the size of the buffer for a slow reader. When it is full, further
	// lines are dropped and counted.
	logBuffer = 1 << 20

	// logFlush bounds how long Close waits until the buffered lines are written.
	logFlush = time.Second
)

// A Writer writes the log to an output that may block, such as a pipe whose reader
// has stopped. Write never waits for the output: otherwise connections, admin calls
// and the shutdown would wait, too. Its methods may be called concurrently.
type Writer struct {
	out     io.Writer
	dropped atomic.Uint64 // the number of dropped lines

	mu      sync.Mutex
	waiting []byte // buffered lines
	wake    chan struct{}
	closed  bool
	done    chan struct{} // closed when all lines are written after Close
}

// New starts writing to out. The caller must call Close.
func New(out io.Writer) *Writer {
	w := &Writer{out: out, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write implements io.Writer. It buffers the whole line or drops it.
func (w *Writer) Write(line []byte) (int, error) {
	w.mu.Lock()
	if w.closed || len(w.waiting)+len(line) > logBuffer {
		w.mu.Unlock()
		w.dropped.Add(1)
		return len(line), nil
	}
	w.waiting = append(w.waiting, line...)
	w.mu.Unlock()
	w.signal()
	return len(line), nil
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Writer) run() {
	defer close(w.done)
	var spare []byte
	for range w.wake {
		w.mu.Lock()
		lines, closed := w.waiting, w.closed
		w.waiting = spare[:0]
		w.mu.Unlock()
		w.out.Write(lines) // an error cannot be logged
		if spare = lines; cap(spare) > 64<<10 {
			spare = nil
		}
		if closed {
			return
		}
	}
}

// Dropped returns how many lines were dropped.
func (w *Writer) Dropped() uint64 { return w.dropped.Load() }

// Close writes the buffered lines, for at most logFlush. If the output still blocks
// then, Close abandons the goroutine that writes.
func (w *Writer) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.signal()
	deadline := time.NewTimer(logFlush)
	defer deadline.Stop()
	select {
	case <-w.done:
	case <-deadline.C:
	}
	return nil
}
