package accesslog

import (
	"bytes"
	"io"
	"time"

	"github.com/hashicorp/go-hclog"
)

// A writer is the blocking half of a Logger: one goroutine, which owns the
// file.
type writer struct {
	logger *Logger
	path   string // "" without a file
	open   func(path string) (io.WriteCloser, error)
	file   io.Closer // nil without a file
	out    io.Writer
	log    hclog.Logger

	rest    []byte // the unwritten part of chunk
	chunk   []byte // being written, or nil
	midLine bool   // the last byte written was not the end of a line

	warned     time.Time // time of the last warning
	failing    bool      // the last write failed
	dropped    uint64    // dropped records at the last warning
	suppressed uint64    // failures since the last warning
	lastError  error
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

// flush writes everything. It returns false if that failed.
func (w *writer) flush() bool {
	for {
		if w.chunk == nil {
			if w.chunk = w.logger.take(); w.chunk == nil {
				w.warnDropped()
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

// wrote counts the next n bytes of rest, which were written, and removes them.
func (w *writer) wrote(n int) {
	if n == 0 {
		return
	}
	done := w.rest[:n]
	w.rest = w.rest[n:]
	w.midLine = done[n-1] != '\n'
	w.logger.written.Add(uint64(bytes.Count(done, newline)))
	w.logger.freed(n, nil)
}

var newline = []byte{'\n'}

// reopen opens the file by its path. If the old file contains only the
// beginning of a record, because the disk was full, the rest is dropped: it
// would be an invalid line in the new file.
func (w *writer) reopen() error {
	if w.path == "" {
		return nil
	}
	file, err := w.open(w.path)
	if err != nil {
		return err
	}
	_ = w.file.Close() // everything possible was written
	w.file, w.out = file, file
	if w.midLine {
		n := bytes.IndexByte(w.rest, '\n') + 1
		w.rest = w.rest[n:]
		w.logger.freed(n, nil)
		w.logger.dropped.Add(1)
		w.midLine = false
	}
	return nil
}

// end closes the file, and drops the remaining lines.
func (w *writer) end() {
	lost := bytes.Count(w.rest, newline)
	for c := w.logger.take(); c != nil; c = w.logger.take() {
		lost += bytes.Count(c, newline)
	}
	w.logger.dropped.Add(uint64(lost))
	if lost > 0 {
		w.log.Error("access log: records are lost because they cannot be written", "records", lost, "error", w.lastError)
	}
	if w.file != nil {
		_ = w.file.Close() // everything possible was written
	}
}

// warnEvery is the minimum time between two warnings: with a full disk every
// write fails.
const warnEvery = 10 * time.Second

// failed counts a failed write, and logs it at most once in warnEvery.
func (w *writer) failed(err error) {
	w.logger.failures.Add(1)
	w.failing, w.lastError = true, err
	if time.Since(w.warned) < warnEvery {
		w.suppressed++
		return
	}
	w.log.Warn("access log: records cannot be written and are buffered", "error", err, "suppressed", w.suppressed,
		"dropped", w.logger.dropped.Load())
	w.warned, w.suppressed = time.Now(), 0
}

// recovered logs that writing succeeds again.
func (w *writer) recovered() {
	if w.failing {
		w.failing, w.lastError = false, nil
		w.log.Info("access log: records are written again", "dropped", w.logger.dropped.Load())
	}
}

// warnDropped logs, at most once in warnEvery, that records arrive faster than
// they are written.
func (w *writer) warnDropped() {
	dropped := w.logger.dropped.Load()
	if dropped == w.dropped || time.Since(w.warned) < warnEvery {
		return
	}
	w.log.Warn("access log: records were dropped because they arrived faster than they could be written", "records", dropped-w.dropped)
	w.dropped, w.warned = dropped, time.Now()
}
