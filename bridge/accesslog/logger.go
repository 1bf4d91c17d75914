package accesslog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Options configure a Logger. Path or Output is required.
type Options struct {
	// Path is the file that lines are appended to. It is created if missing, with
	// mode 0640 subject to the umask. Reopen opens it again.
	Path string

	// Output is the destination if Path is empty. The caller keeps ownership.
	Output io.Writer

	Format Format // the zero Format is JSON

	// Pending bounds the bytes of lines that wait to be written; lines beyond it
	// are dropped. 0: 4 MiB.
	Pending int

	Logger hclog.Logger // logs write failures; nil discards

	open func(path string) (io.WriteCloser, error) // for tests; nil: openFile
}

const (
	// chunkSize is the size of one write: about a hundred lines.
	chunkSize = 64 << 10

	// flushAfter is how long the first line of a chunk waits for more.
	flushAfter = 500 * time.Millisecond

	// retryAfter is the pause after a failed write.
	retryAfter = time.Second

	// spareChunks is the number of written chunks kept for reuse.
	spareChunks = 4
)

// A Logger writes the lines of records. All methods may be called
// concurrently. The caller must call Close.
type Logger struct {
	format Format
	limit  int
	lines  sync.Pool // holds *[]byte

	mu     sync.Mutex
	chunks [][]byte // waiting, oldest first; the last may have room
	size   int      // bytes of chunks, including those that the writer has taken
	spare  [][]byte
	closed bool

	written, dropped, failures atomic.Uint64

	wake    chan struct{}   // the first chunk has data
	full    chan struct{}   // a chunk is full
	reopens chan chan error // requests to reopen; each gets the result
	stop    chan struct{}   // closed by Close
	ended   chan struct{}   // closed when the writer has ended
}

// Stats are the counts of a Logger. After Close, every record was either
// written or dropped.
type Stats struct {
	Written  uint64 // records written
	Dropped  uint64 // records for which there was no room, or that could not be written before Close ended
	Failures uint64 // failed writes; each is retried
}

// Open returns a Logger. The error is from opening the file.
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

// openFile opens a file to append to. Without O_NONBLOCK, opening a FIFO would wait
// for its reader.
func openFile(path string) (io.WriteCloser, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NONBLOCK, 0o640)
	if errors.Is(err, syscall.ENXIO) {
		return nil, fmt.Errorf("%s is a FIFO, or a device, that no process reads: start its reader first", path)
	}
	return f, err
}

// Log records r, which the caller may reuse when it returns. It never blocks
// on writing, and allocates nothing in steady state.
func (l *Logger) Log(r *Record) {
	buf, ok := l.lines.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	*buf = l.format.append((*buf)[:0], r)
	l.add(*buf)
	l.lines.Put(buf)
}

// add queues a line, or drops it.
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

// signal never blocks: a receiver that has not taken the last signal will see
// the new data too.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// chunk returns an empty chunk. l.mu is held.
func (l *Logger) chunk() []byte {
	if n := len(l.spare) - 1; n >= 0 {
		c := l.spare[n]
		l.spare = l.spare[:n]
		return c
	}
	return make([]byte, 0, chunkSize)
}

// take returns the oldest chunk, which the writer then owns, or nil.
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

// freed records that n bytes no longer wait. A chunk that is not nil was fully
// written and can be reused.
func (l *Logger) freed(n int, chunk []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.size -= n
	if chunk != nil && len(l.spare) < spareChunks {
		l.spare = append(l.spare, chunk[:0])
	}
}

// Reopen opens the file by its path again, after it was renamed: the old file
// contains every earlier record, and the new one every later record. On
// failure the old file stays in use. Without a Path, or after Close, it does
// nothing. It stops waiting when ctx ends.
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

// Close writes the remaining lines and closes the file. It returns when that
// is done or ctx ends; lines that cannot be written by then are dropped, as
// are later records.
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

// Stats returns the current counts.
func (l *Logger) Stats() Stats {
	return Stats{Written: l.written.Load(), Dropped: l.dropped.Load(), Failures: l.failures.Load()}
}
