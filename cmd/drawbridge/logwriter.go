package main

import (
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// logBuffer is how many bytes of the log wait for whoever reads it. What comes
	// when it is full is dropped and counted.
	logBuffer = 1 << 20

	// logFlush is how long the end of the program waits for the rest of the log.
	logFlush = time.Second
)

// A logWriter writes the log to an output that may block: a pipe whose reader has
// stopped reading. Whoever logs never waits for it, or a connection, an admin call
// and the stop would wait with it. Its methods may be called concurrently.
type logWriter struct {
	out     io.Writer
	dropped atomic.Uint64 // lines

	mu      sync.Mutex
	waiting []byte // lines that wait to be written
	wake    chan struct{}
	closed  bool
	done    chan struct{} // closed when everything was written after Close
}

// newLogWriter starts writing to out. The caller must call Close.
func newLogWriter(out io.Writer) *logWriter {
	w := &logWriter{out: out, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write implements io.Writer. A line is taken whole or dropped.
func (w *logWriter) Write(line []byte) (int, error) {
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

func (w *logWriter) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *logWriter) run() {
	defer close(w.done)
	var spare []byte
	for range w.wake {
		w.mu.Lock()
		lines, closed := w.waiting, w.closed
		w.waiting = spare[:0]
		w.mu.Unlock()
		w.out.Write(lines) // nobody to report an error to
		if spare = lines; cap(spare) > 64<<10 {
			spare = nil
		}
		if closed {
			return
		}
	}
}

// Dropped returns how many lines were dropped.
func (w *logWriter) Dropped() uint64 { return w.dropped.Load() }

// Close writes what waits, for logFlush at most. An output that still blocks then
// is left behind, with the goroutine that writes to it.
func (w *logWriter) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.signal()
	late := time.NewTimer(logFlush)
	defer late.Stop()
	select {
	case <-w.done:
	case <-late.C:
	}
	return nil
}
