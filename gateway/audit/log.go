package audit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Options configure a Log.
type Options struct {
	// Path is the file to append to. Its directory must exist.
	Path string

	// Required makes Begin fail if its line cannot be written. False: Begin never fails,
	// and lines that cannot be written are dropped and counted in the log.
	Required bool

	Logger hclog.Logger
}

// maxQueued bounds how many lines wait to be written. Results of started writes are
// queued beyond the limit, because their number is bounded by the concurrent writes.
const maxQueued = 1024

// A Log writes records to a file. A nil Log records nothing. Its methods may be called
// concurrently.
type Log struct {
	o Options

	// Owned by run.
	file  file
	fault string // why the last write failed, or ""

	wake   chan struct{} // wakes run; holds one value
	ended  chan struct{} // closed when run has returned
	reopen chan chan error

	mu      sync.Mutex
	queue   []*entry
	dropped uint64
	closing bool
}

// An entry is a line that waits to be written.
type entry struct {
	line []byte
	done chan error // receives the result of writing the line; nil: no caller waits
	keep bool       // the line must not be dropped
}

// Open opens the log, and creates a missing file with mode 0600. The caller must call
// Close.
func Open(o Options) (*Log, error) {
	l := &Log{o: o, file: file{path: o.Path}, wake: make(chan struct{}, 1), ended: make(chan struct{}), reopen: make(chan chan error)}
	if err := l.file.open(); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	go l.run()
	return l, nil
}

// Begin records that a write has started, and returns when the record is on disk. The
// caller must call end with the result, which is recorded in the background. If Begin
// fails, the write must not be made, but end must still be called.
func (l *Log) Begin(ctx context.Context, r Record) (end func(Record), err error) {
	if l == nil {
		return func(Record) {}, nil
	}
	r.Write, r.Result = rand.Text(), Started
	id := r.Write
	end = func(r Record) {
		r.Write = id
		l.add(&entry{line: r.line(time.Now()), keep: l.o.Required})
	}
	e := &entry{line: r.line(time.Now())}
	if !l.o.Required {
		l.add(e)
		return end, nil
	}
	e.done = make(chan error, 1)
	if !l.add(e) {
		return end, errors.New("the audit log cannot keep up")
	}
	select {
	case err = <-e.done:
	case <-ctx.Done():
		err = fmt.Errorf("the audit log was not written in time: %w", ctx.Err())
	}
	return end, err
}

// Add records an action other than a write, in the background. If the queue is full,
// the record is dropped.
func (l *Log) Add(r Record) {
	if l != nil {
		l.add(&entry{line: r.line(time.Now())})
	}
}

// add queues an entry unless the queue is full.
func (l *Log) add(e *entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing || len(l.queue) >= maxQueued && !e.keep {
		l.dropped++
		return false
	}
	l.queue = append(l.queue, e)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

// Reopen opens the file by its path again, after it was renamed. If that fails, the Log
// keeps the old one.
func (l *Log) Reopen(ctx context.Context) error {
	if l == nil {
		return nil
	}
	done := make(chan error, 1)
	select {
	case l.reopen <- done:
	case <-l.ended:
		return errors.New("the audit log is closed")
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close writes the queued lines, and closes the file. If ctx ends first, because the
// file system hangs, Close returns and its goroutine finishes the work.
func (l *Log) Close(ctx context.Context) {
	if l == nil {
		return
	}
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	select {
	case <-l.ended:
	case <-ctx.Done():
		l.o.Logger.Error("the audit log could not be written to its end", "file", l.o.Path)
	}
}

// retryEvery is how often lines that must not be dropped are tried again.
const retryEvery = time.Second

// run writes the queue until the Log is closed.
func (l *Log) run() {
	defer close(l.ended)
	defer l.file.close()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-l.wake:
		case <-retry.C:
		case done := <-l.reopen:
			l.flush() // lines queued before the rename belong in the old file
			done <- l.file.open()
		}
		wasClosing, pending := l.flush()
		if pending {
			retry.Reset(retryEvery)
		}
		if wasClosing {
			return
		}
	}
}

// flush writes the queue. It reports whether the Log was already closing before,
// and whether lines are still queued.
func (l *Log) flush() (closing, pending bool) {
	l.mu.Lock()
	batch, lost := l.queue, l.dropped
	l.queue, l.dropped, closing = nil, 0, l.closing
	l.mu.Unlock()
	if lost > 0 {
		l.o.Logger.Error("lines of the audit log were dropped", "file", l.o.Path, "lines", lost)
	}
	if len(batch) == 0 {
		return closing, false // there was nothing to write, so the state of the file is unknown
	}
	err := l.write(batch)
	l.report(err)
	if err == nil {
		return closing, false
	}
	err = fmt.Errorf("the audit log cannot be written: %w", err)
	var kept []*entry
	dropped := uint64(0)
	for _, e := range batch {
		switch {
		case e.done != nil:
			e.done <- err
		case e.keep:
			kept = append(kept, e)
		default:
			dropped++
		}
	}
	l.mu.Lock()
	l.queue = append(kept, l.queue...)
	l.dropped += dropped
	l.mu.Unlock()
	return closing, len(kept) > 0
}

// report logs a new write error, and when it ends.
func (l *Log) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == l.fault:
	case err != nil:
		l.o.Logger.Error("the audit log cannot be written", "file", l.o.Path, "error", text)
	default:
		l.o.Logger.Info("the audit log is written again", "file", l.o.Path)
	}
	l.fault = text
}

// write writes a whole batch or nothing, and sends the result to the waiting callers.
func (l *Log) write(batch []*entry) error {
	var text []byte
	waiting := false
	for _, e := range batch {
		text = append(text, e.line...)
		waiting = waiting || e.done != nil
	}
	if err := l.file.append(text, waiting); err != nil {
		return err
	}
	for _, e := range batch {
		if e.done != nil {
			e.done <- nil
		}
	}
	return nil
}
