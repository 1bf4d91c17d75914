package accesslog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout bounds waits for required events. No test waits that long if it
// passes.
const testTimeout = time.Minute

func open(t testing.TB, o Options) *Logger {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNow(t, l) })
	return l
}

func closeNow(t testing.TB, l *Logger) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func reopen(t testing.TB, l *Logger) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if err := l.Reopen(ctx); err != nil {
		t.Errorf("Reopen: %v", err)
	}
}

// A sink is an Output that can block, and that can be full.
type sink struct {
	mu     sync.Mutex
	got    bytes.Buffer
	writes int
	room   int // bytes it still accepts; -1: no limit
	gate   chan struct{}
}

func newSink() *sink { return &sink{room: -1} }

func (s *sink) Write(p []byte) (int, error) {
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	n := len(p)
	if s.room >= 0 {
		n = min(n, s.room)
		s.room -= n
	}
	s.got.Write(p[:n])
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.String()
}

func (s *sink) setRoom(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room = n
}

// paths returns the path of each record in order, and fails on invalid lines.
func paths(t testing.TB, text string) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(text) {
		var r struct{ Path string }
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Path == "" || !strings.HasSuffix(line, "\n") {
			t.Fatalf("no record: %.200q (%v)", line, err)
		}
		all = append(all, r.Path)
	}
	return all
}

func numbered(n int) *Record {
	r := small()
	r.Path = fmt.Sprint("/", n)
	return r
}

// wantInOrder checks that text contains the records numbered from first to
// made.
func wantInOrder(t testing.TB, text string, first, n int) {
	t.Helper()
	got := paths(t, text)
	if len(got) != n {
		t.Fatalf("%d records, want %d", len(got), n)
	}
	for i, path := range got {
		if want := fmt.Sprint("/", first+i); path != want {
			t.Fatalf("record %d is %s, want %s", i, path, want)
		}
	}
}

func TestRecordsAreWrittenInOrderAndInBatches(t *testing.T) {
	out := newSink()
	l := open(t, Options{Output: out, Pending: 64 << 20})
	const n = 20_000
	for i := range n {
		l.Log(numbered(i))
	}
	closeNow(t, l)
	wantInOrder(t, out.String(), 0, n)
	if s := l.Stats(); s != (Stats{Written: n}) {
		t.Errorf("stats %+v", s)
	}
	if most := out.got.Len()/chunkSize*2 + 10; out.writes > most {
		t.Errorf("%d writes, want no more than %d", out.writes, most)
	}
}

func TestOneRecordIsWrittenWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newSink()
		l := open(t, Options{Output: out})
		for i := range 3 {
			l.Log(numbered(i))
			synctest.Wait()
			time.Sleep(time.Second)
			synctest.Wait()
			wantInOrder(t, out.String(), 0, i+1)
		}
	})
}

func TestRecordsWithoutRoomAreDroppedAndCounted(t *testing.T) {
	out := newSink()
	out.gate = make(chan struct{})
	var log logtest.Buffer
	l := open(t, Options{Output: out, Pending: 200 << 10, Logger: hclog.New(&hclog.LoggerOptions{Output: &log})})
	const n = 5000
	for i := range n {
		l.Log(numbered(i)) // Log never waits, even if no line is being written
	}
	dropped := l.Stats().Dropped
	if dropped == 0 || dropped == n {
		t.Fatalf("%d dropped", dropped)
	}
	close(out.gate)
	closeNow(t, l)
	got := paths(t, out.String())
	if s := l.Stats(); s.Written != uint64(len(got)) || s.Dropped != dropped || s.Written+s.Dropped != n {
		t.Errorf("stats %+v, %d records written", s, len(got))
	}
	if size := out.got.Len(); size > 200<<10 || size < 190<<10 {
		t.Errorf("%d bytes waited", size)
	}
	if !strings.Contains(log.String(), fmt.Sprint("records were dropped because they arrived faster than they could be written: records=", dropped)) {
		t.Errorf("the log says %q", log.String())
	}
	l.Log(small()) // dropped after Close
	if s := l.Stats(); s.Dropped != dropped+1 {
		t.Errorf("stats after Close %+v", s)
	}
}

// If the disk is full for a while, no record is lost or split: a partial write
// is completed later.
func TestWritingResumesAfterAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newSink()
		out.room = 100 // less than a line
		var log logtest.Buffer
		l := open(t, Options{Output: out, Logger: hclog.New(&hclog.LoggerOptions{Output: &log})})
		for i := range 1000 {
			l.Log(numbered(i))
		}
		time.Sleep(15*time.Second + 1)
		synctest.Wait()
		s := l.Stats()
		if s.Written != 0 || s.Dropped != 0 || s.Failures < 10 || s.Failures > 20 {
			t.Errorf("stats of a full disk %+v", s)
		}
		if n := strings.Count(log.String(), "[WARN]"); n != 2 {
			t.Errorf("%d warnings, want 2:\n%s", n, log.String())
		}
		out.setRoom(-1)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantInOrder(t, out.String(), 0, 1000)
		if now := l.Stats(); now.Written != 1000 || now.Failures != s.Failures {
			t.Errorf("stats %+v", now)
		}
		if !strings.Contains(log.String(), "records are written again") {
			t.Errorf("the log does not say so:\n%s", log.String())
		}
	})
}

func TestUnwrittenRecordsAreDroppedOnClose(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("there is no /dev/full")
	}
	var log logtest.Buffer
	l := open(t, Options{Path: "/dev/full", Logger: hclog.New(&hclog.LoggerOptions{Output: &log})})
	const n = 1000 // enough for several chunks
	for range n {
		l.Log(small())
	}
	closeNow(t, l)
	if s := l.Stats(); s.Written != 0 || s.Dropped != n || s.Failures == 0 {
		t.Errorf("stats %+v", s)
	}
	if !strings.Contains(log.String(), "records are lost because they cannot be written: records=1000") || !strings.Contains(log.String(), "no space left on device") {
		t.Errorf("the log says %q", log.String())
	}
}

func TestTheFileIsPrivateAndAppendedTo(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "access.log")
	for i := range 2 {
		l := open(t, Options{Path: path})
		l.Log(numbered(i))
		closeNow(t, l)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	wantInOrder(t, read(t, path), 0, 2)
	if _, err := Open(Options{Path: filepath.Join(path, "x")}); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("an impossible path: %v", err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// When files are renamed and reopened while many goroutines log, every record
// is in the files, whole and once.
func TestReopenUnderLoadLosesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "access.log")
	l := open(t, Options{Path: path, Pending: 256 << 20})
	const writers, each, rotations = 4, 5000, 20
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				l.Log(numbered(w*each + i))
			}
		})
	}
	for i := range rotations {
		if err := os.Rename(path, filepath.Join(dir, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		reopen(t, l)
		runtime.Gosched()
	}
	all.Wait()
	closeNow(t, l)
	reopen(t, l) // has no effect after Close
	seen := map[string]int{}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != rotations+1 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		for _, p := range paths(t, read(t, filepath.Join(dir, f.Name()))) {
			seen[p]++
		}
	}
	if s := l.Stats(); len(seen) != writers*each || s != (Stats{Written: writers * each}) {
		t.Errorf("%d records, %+v", len(seen), s)
	}
	for p, n := range seen {
		if n != 1 {
			t.Errorf("%s appears %d times", p, n)
		}
	}
}

func TestAFileThatCannotBeReopenedStaysInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{Path: filepath.Join(dir, "access.log")})
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Reopen: %v", err)
	}
	l.Log(numbered(0))
	closeNow(t, l)
	wantInOrder(t, read(t, filepath.Join(dir+".old", "access.log")), 0, 1)
}

// Only the record whose beginning is in the old file is lost.
func TestAfterAFullDiskReopenStartsWithAWholeRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := newSink(), newSink()
		line := len(JSON.append(nil, numbered(0)))
		old.room = line + line/2
		files := []*sink{old, fresh}
		l := open(t, Options{Path: "x", open: func(string) (io.WriteCloser, error) {
			f := files[0]
			files = files[1:]
			return struct {
				*sink
				io.Closer
			}{f, io.NopCloser(nil)}, nil
		}})
		for i := range 5 {
			l.Log(numbered(i))
		}
		time.Sleep(time.Second)
		reopen(t, l)
		l.Log(numbered(5))
		closeNow(t, l)
		if got := old.String(); len(got) != line+line/2 {
			t.Errorf("the old file has %q", got)
		}
		wantInOrder(t, fresh.String(), 2, 4)
		if s := l.Stats(); s.Written != 5 || s.Dropped != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// If the reader of the output stops reading, neither Close nor Reopen waits
// forever.
func TestAHangingWriteDoesNotBlockCloseOrReopen(t *testing.T) {
	out := newSink()
	out.gate = make(chan struct{})
	l := open(t, Options{Output: out})
	t.Cleanup(func() { close(out.gate) })
	for range 1000 {
		l.Log(small())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Close(ctx); err != context.Canceled {
		t.Errorf("Close: %v", err)
	}
	for { // waits until the writer is blocked in a write
		if err := l.Reopen(ctx); err == context.Canceled {
			return
		}
	}
}

func TestLoggingAllocatesNothing(t *testing.T) {
	l := open(t, Options{Output: io.Discard})
	r := small()
	for range 10_000 {
		l.Log(r)
	}
	alloctest.Want(t, "Log", 0, func() { l.Log(r) })
}

func BenchmarkLog(b *testing.B) {
	file := filepath.Join(b.TempDir(), "access.log")
	for name, o := range map[string]Options{"discard": {Output: io.Discard}, "file": {Path: file}} {
		b.Run(name, func(b *testing.B) {
			l := open(b, o)
			r := small()
			var n atomic.Uint64
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					l.Log(r)
					if n.Add(1)%(1<<20) == 0 {
						_ = os.Truncate(file, 0) // keeps the disk from filling up
					}
				}
			})
			b.ReportMetric(float64(l.Stats().Dropped)/float64(b.N), "dropped/op")
		})
	}
}
