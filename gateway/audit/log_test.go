package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logTo opens a log in a new directory, and returns a function that reads its
// records.
func logTo(t *testing.T, required bool) (l *Log, path string, read func() []Record, errors *bytes.Buffer) {
	t.Helper()
	path, errors = filepath.Join(t.TempDir(), "audit.log"), &bytes.Buffer{}
	l, err := Open(Options{Path: path, Required: required, Logger: hclog.New(&hclog.LoggerOptions{Output: errors, Mutex: new(sync.Mutex)})})
	if err != nil {
		t.Fatal(err)
	}
	return l, path, func() []Record { return records(t, path) }, errors
}

func records(t *testing.T, path string) []Record {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []Record
	for line := range strings.Lines(string(text)) {
		var r Record
		if err := json.Unmarshal([]byte(line), &r); err != nil || !strings.HasSuffix(line, "\n") {
			t.Fatalf("%q is not a record: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}

// breakFile makes every write fail, like a full disk.
func breakFile(t *testing.T, l *Log) {
	t.Helper()
	if err := l.file.f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAWriteIsRecordedBeforeAndAfterItsCommit(t *testing.T) {
	l, path, read, _ := logTo(t, true)
	end, err := l.Begin(t.Context(), Record{Principal: "uid:0", Method: "Apply", Comment: "a\nb\x1b[2J<", Resources: make([]string, 1000), RevisionBefore: 3})
	if err != nil {
		t.Fatal(err)
	}
	first := read() // these lines are already in the file
	end(Record{Principal: "uid:0", Method: "Apply", Result: "OK", RevisionBefore: 3, RevisionAfter: 4})
	l.Add(Record{Principal: "uid:7", Method: "Probe", Result: "OK"})
	l.Close(t.Context())
	all := read()
	if len(first) != 1 || len(all) != 3 {
		t.Fatalf("%d records while the write is made, %d in the end", len(first), len(all))
	}
	if r := all[0]; r.Result != Started || r.Write == "" || r.Comment != "a\nb\x1b[2J<" || len(r.Resources) != 100 || r.ResourceCount != 1000 || time.Since(r.Time) > time.Hour {
		t.Errorf("%+v", r)
	}
	if r := all[1]; r.Result != "OK" || r.Write != all[0].Write || r.RevisionAfter != 4 {
		t.Errorf("%+v", r)
	}
	text, _ := os.ReadFile(path)
	if bytes.ContainsAny(text, "\x1b") || bytes.Count(text, []byte("\n")) != 3 {
		t.Errorf("a comment forges lines or reaches a terminal: %q", text)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestAWriteThatCannotBeRecordedIsRefused(t *testing.T) {
	l, _, read, log := logTo(t, true)
	began, err := l.Begin(t.Context(), Record{Method: "one"})
	if err != nil {
		t.Fatal(err)
	}
	breakFile(t, l)
	refused, err := l.Begin(t.Context(), Record{Method: "two"})
	if err == nil || !strings.Contains(err.Error(), "audit log cannot be written") {
		t.Fatalf("the second write may be made: %v", err)
	}
	refused(Record{Method: "two", Result: "UNAVAILABLE"})
	began(Record{Method: "one", Result: "OK"})
	l.Add(Record{Method: "probe", Result: "OK"}) // may be lost
	if err := l.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The results were kept, and are written before new lines.
	end, err := l.Begin(t.Context(), Record{Method: "three"})
	if err != nil {
		t.Fatal(err)
	}
	end(Record{Method: "three", Result: "OK"})
	l.Close(t.Context())
	var got []string
	for _, r := range read() {
		if r.Method != "probe" {
			got = append(got, r.Method+" "+r.Result)
		}
	}
	want := "one STARTED, two UNAVAILABLE, one OK, three STARTED, three OK"
	if strings.Join(got, ", ") != want {
		t.Errorf("%s\nwant %s", strings.Join(got, ", "), want)
	}
	if n := strings.Count(log.String(), "the audit log cannot be written"); n != 1 || !strings.Contains(log.String(), "is written again") {
		t.Errorf("the log: %s", log)
	}
}

func TestWithoutRequirementLostLinesAreCounted(t *testing.T) {
	l, _, read, log := logTo(t, false)
	breakFile(t, l)
	end, err := l.Begin(t.Context(), Record{Method: "one"})
	if err != nil {
		t.Fatal(err)
	}
	end(Record{Method: "one", Result: "OK"})
	if err := l.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Add(Record{Method: "two", Result: "OK"})
	l.Close(t.Context())
	all := read()
	if len(all) == 0 || all[len(all)-1].Method != "two" {
		t.Errorf("%+v", all)
	}
	if len(all) < 3 && !strings.Contains(log.String(), "lines of the audit log were dropped") {
		t.Errorf("%d records, and the log says %s", len(all), log)
	}
}

// A file system that hangs delays a caller at most until its deadline, and does not
// delay the end of the process.
func TestHungFileSystemRefusesWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Log{o: Options{Required: true, Logger: hclog.NewNullLogger()}, wake: make(chan struct{}, 1), ended: make(chan struct{})}
		// Without run, no goroutine writes.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.Begin(ctx, Record{}); err == nil || !strings.Contains(err.Error(), "not written in time") {
			t.Errorf("%v", err)
		}
		for range 2 * maxQueued {
			l.Add(Record{})
		}
		if _, err := l.Begin(t.Context(), Record{}); err == nil || !strings.Contains(err.Error(), "cannot keep up") {
			t.Errorf("%v", err)
		}
		if len(l.queue) > maxQueued {
			t.Errorf("%d lines wait", len(l.queue))
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l.Close(ctx)
	})
}

func TestAPartlyWrittenLineIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	f := file{path: path}
	if err := f.open(); err != nil {
		t.Fatal(err)
	}
	defer f.close()
	if err := f.append([]byte("one\n"), true); err != nil {
		t.Fatal(err)
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	// The kernel takes six bytes of the line and fails with EFBIG on the rest.
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 10, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	err := f.append([]byte("a line too many\n"), true)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err == nil {
		t.Error("the line fits")
	}
	if err := f.append([]byte("two\n"), false); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(path); string(text) != "one\ntwo\n" {
		t.Errorf("%q", text)
	}
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, dir, filepath.Join(dir, "none", "audit.log")} {
		if l, err := Open(Options{Path: path, Logger: hclog.NewNullLogger()}); err == nil {
			l.Close(t.Context())
			t.Errorf("%s was opened", path)
		}
	}
	var none *Log
	end, err := none.Begin(t.Context(), Record{})
	if err != nil || none.Reopen(t.Context()) != nil {
		t.Error(err)
	}
	end(Record{})
	none.Add(Record{})
	none.Close(t.Context())
}

func TestManyWritersLoseNothing(t *testing.T) {
	l, _, read, _ := logTo(t, true)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			for j := range 20 {
				end, err := l.Begin(t.Context(), Record{Method: fmt.Sprint(i, j)})
				if err != nil {
					t.Error(err)
				}
				end(Record{Method: fmt.Sprint(i, j), Result: "OK"})
			}
		})
	}
	wg.Wait()
	l.Close(t.Context())
	started := map[string]bool{}
	ended := 0
	for _, r := range read() {
		if r.Result == Started {
			started[r.Write] = true
		} else if ended++; !started[r.Write] {
			t.Errorf("the result of %s came first", r.Method)
		}
	}
	if len(started) != 1000 || ended != 1000 {
		t.Errorf("%d begun, %d ended", len(started), ended)
	}
}
