package accesslog

import (
	"bytes"
	"io"
	"time"

	"github.com/hashicorp/go-hclog"
)

// A writer is the half of a Logger that may block: one goroutine, which owns the
// file.
type writer struct {
	logger *Logger
	path   string // "" if there is no file
	open   func(path string) (io.WriteCloser, error)
	file   io.Closer // nil if there is none
	out    io.Writer
	log    hclog.Logger

	rest   []byte // of chunk: what is still to be written
	chunk  []byte // nil: none is under way
	inside bool   // the last byte written was not the end of a line

	warned    time.Time // when the log was told last that something is wrong
	failing   bool      // and whether the last write failed
	dropped   uint64    // records, as of then
	untold    uint64    // failures that the log was not told of
	lastError error
}

// run writes until the Logger is closed.
func (w *writer) run() {
	l := w.logger
	defer close(l.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		select {
		case <-l.wake:
			if !w.failing {
				timer.Reset(flushAfter)
			}
			continue
		case <-l.full:
			if w.failing {
				continue
			}
		case <-timer.C:
		case done := <-l.reopens:
			w.flush()
			done <- w.reopen()
		case <-l.stop:
			w.flush()
			w.end()
			return
		}
		if !w.flush() {
			timer.Reset(retryAfter)
		}
	}
}

// flush writes all there is. It reports false if that failed.
func (w *writer) flush() bool {
	for {
		if w.chunk == nil {
			if w.chunk = w.logger.take(); w.chunk == nil {
				w.tellDropped()
				return true
			}
			w.rest = w.chunk
		}
		n, err := w.out.Write(w.rest)
		w.wrote(min(max(n, 0), len(w.rest)))
		if err == nil && len(w.rest) > 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			w.failed(err)
			return false
		}
		w.recovered()
		chunk := w.chunk
		w.chunk, w.rest = nil, nil
		w.logger.freed(0, chunk)
	}
}

// wrote notes that the next n bytes are where they belong.
func (w *writer) wrote(n int) {
	if n == 0 {
		return
	}
	done := w.rest[:n]
	w.rest = w.rest[n:]
	w.inside = done[n-1] != '\n'
	w.logger.written.Add(uint64(bytes.Count(done, newline)))
	w.logger.freed(n, nil)
}

var newline = []byte{'\n'}

// reopen opens the file by its path. A record of which the old file has the
// beginning, for it had no room for more, is dropped: its end would be no line
// in the new one.
func (w *writer) reopen() error {
	if w.path == "" {
		return nil
	}
	file, err := w.open(w.path)
	if err != nil {
		return err
	}
	_ = w.file.Close() // all was written that could be
	w.file, w.out = file, file
	if w.inside {
		n := bytes.IndexByte(w.rest, '\n') + 1
		w.rest = w.rest[n:]
		w.logger.freed(n, nil)
		w.logger.dropped.Add(1)
		w.inside = false
	}
	return nil
}

// end closes the file, and drops what is left.
func (w *writer) end() {
	lost := bytes.Count(w.rest, newline)
	for c := w.logger.take(); c != nil; c = w.logger.take() {
		lost += bytes.Count(c, newline)
	}
	w.logger.dropped.Add(uint64(lost))
	if lost > 0 {
		w.log.Error("access log: records are lost, for they cannot be written", "records", lost, "error", w.lastError)
	}
	if w.file != nil {
		_ = w.file.Close() // all was written that could be
	}
}

// tellEvery is the least time between two warnings: a disk that is full fails
// every write.
const tellEvery = 10 * time.Second

// failed counts a write that failed, and says so now and then.
func (w *writer) failed(err error) {
	w.logger.failures.Add(1)
	w.failing, w.lastError = true, err
	if time.Since(w.warned) < tellEvery {
		w.untold++
		return
	}
	w.log.Warn("access log: records cannot be written; they wait, as far as there is room", "error", err, "suppressed", w.untold,
		"dropped", w.logger.dropped.Load())
	w.warned, w.untold = time.Now(), 0
}

// recovered says that records are written again.
func (w *writer) recovered() {
	if w.failing {
		w.failing, w.lastError = false, nil
		w.log.Info("access log: records are written again", "dropped", w.logger.dropped.Load())
	}
}

// tellDropped says now and then that records come faster than they are written.
func (w *writer) tellDropped() {
	dropped := w.logger.dropped.Load()
	if dropped == w.dropped || time.Since(w.warned) < tellEvery {
		return
	}
	w.log.Warn("access log: records were dropped, for they came faster than they could be written", "records", dropped-w.dropped)
	w.dropped, w.warned = dropped, time.Now()
}
