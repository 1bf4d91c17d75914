package accesslog

import (
	"cmp"
	"context"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Options say where the lines of a Logger go. There must be a Path or an Output.
type Options struct {
	// Path is the file that lines are appended to. It is made if it is missing,
	// with mode 0640 as far as the umask allows, and opened anew by Reopen.
	Path string

	// Output is what is written to if there is no Path. It stays its owner's.
	Output io.Writer

	Format Format // the zero Format is JSON

	// Pending is how many bytes of lines may wait to be written; what does not
	// fit is dropped. 0: 4 MiB.
	Pending int

	Logger hclog.Logger // is told when lines cannot be written; nil discards

	open func(path string) (io.WriteCloser, error) // of a test; nil: openFile
}

const (
	// chunkSize is how much is written at once: a hundred lines or so.
	chunkSize = 64 << 10

	// flushAfter is how long the first line of a chunk waits for further ones.
	flushAfter = 500 * time.Millisecond

	// retryAfter is how long after a write that failed the next is tried.
	retryAfter = time.Second

	// spareChunks is how many that are written are kept for further lines.
	spareChunks = 4
)

// A Logger writes the lines of records. All methods may be called concurrently.
// It must be ended with Close.
type Logger struct {
	format Format
	limit  int
	lines  sync.Pool // of *[]byte

	mu     sync.Mutex
	chunks [][]byte // what waits, oldest first; the last has room, maybe
	size   int      // bytes of chunks, and of what the writer has taken
	spare  [][]byte
	closed bool

	written, dropped, failures atomic.Uint64

	wake    chan struct{}   // there is something, where there was nothing
	full    chan struct{}   // there is a whole chunk
	reopens chan chan error // each is sent what came of it
	stop    chan struct{}   // closed by Close
	ended   chan struct{}   // closed when the writer has ended
}

// Stats are what a Logger has done so far. When it is closed, every record it
// was given was either written or dropped.
type Stats struct {
	Written  uint64 // records
	Dropped  uint64 // records for which there was no room, or that could not be written before the end
	Failures uint64 // writes that failed; what they were to write is tried again
}

// Open returns a Logger. The error is that of opening the file.
func Open(o Options) (*Logger, error) {
	w := &writer{path: o.Path, open: o.open, out: o.Output, log: o.Logger}
	if w.log == nil {
		w.log = hclog.NewNullLogger()
	}
	if w.open == nil {
		w.open = openFile
	}
	if o.Path != "" {
		file, err := w.open(o.Path)
		if err != nil {
			return nil, err
		}
		w.file, w.out = file, file
	}
	l := &Logger{
		format:  o.Format,
		limit:   cmp.Or(o.Pending, 4<<20),
		wake:    make(chan struct{}, 1),
		full:    make(chan struct{}, 1),
		reopens: make(chan chan error),
		stop:    make(chan struct{}),
		ended:   make(chan struct{}),
	}
	w.logger = l
	go w.run()
	return l, nil
}

// openFile opens a file to append to.
func openFile(path string) (io.WriteCloser, error) {
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
}

// Log records r, which is the caller's again when it returns. It never waits for
// anything to be written, and allocates nothing in steady state.
func (l *Logger) Log(r *Record) {
	buf, ok := l.lines.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	*buf = l.format.append((*buf)[:0], r)
	l.add(*buf)
	l.lines.Put(buf)
}

// add has a line written, or drops it.
func (l *Logger) add(line []byte) {
	l.mu.Lock()
	if l.closed || l.size+len(line) > l.limit {
		l.mu.Unlock()
		l.dropped.Add(1)
		return
	}
	first := len(l.chunks) == 0
	last := len(l.chunks) - 1
	whole := !first && len(l.chunks[last])+len(line) > cap(l.chunks[last])
	if first || whole {
		l.chunks = append(l.chunks, l.chunk())
		last++
	}
	l.chunks[last] = append(l.chunks[last], line...)
	l.size += len(line)
	l.mu.Unlock()
	if first {
		signal(l.wake)
	}
	if whole {
		signal(l.full)
	}
}

// signal never blocks: who has not taken the last one yet will find all there is.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// chunk returns an empty one. l.mu is held.
func (l *Logger) chunk() []byte {
	if n := len(l.spare) - 1; n >= 0 {
		c := l.spare[n]
		l.spare = l.spare[:n]
		return c
	}
	return make([]byte, 0, chunkSize)
}

// take returns the oldest chunk, which is the writer's from now on; nil if there
// is none.
func (l *Logger) take() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.chunks) == 0 {
		return nil
	}
	c := l.chunks[0]
	n := copy(l.chunks, l.chunks[1:])
	l.chunks[n] = nil
	l.chunks = l.chunks[:n]
	return c
}

// freed says that n bytes of what was taken do not wait any more. Chunk, if it
// is not nil, was all written.
func (l *Logger) freed(n int, chunk []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.size -= n
	if chunk != nil && len(l.spare) < spareChunks {
		l.spare = append(l.spare, chunk[:0])
	}
}

// Reopen has the file opened anew by its path, for one that was renamed: every
// record so far is in the old one, and what follows in the new. If that fails it
// is still written to the old one. Without a Path, and once the Logger is
// closed, it does nothing. When ctx ends it does not wait any longer.
func (l *Logger) Reopen(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case l.reopens <- done:
	case <-l.ended:
		return nil
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

// Close writes what is left and closes the file. It returns when that is done,
// or as ctx ends: then, or if it cannot be written, the rest is dropped. Records
// that come later are dropped too.
func (l *Logger) Close(ctx context.Context) error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	if first {
		close(l.stop)
	}
	select {
	case <-l.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stats returns the present numbers.
func (l *Logger) Stats() Stats {
	return Stats{Written: l.written.Load(), Dropped: l.dropped.Load(), Failures: l.failures.Load()}
}
