package files

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// writeText creates a file and its parent directories.
func writeText(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// realTempDir is t.TempDir without symlinks on the way.
func realTempDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	return dir
}

// polled returns a watcher without notifications. The test calls its polls.
func polled(t testing.TB, root string, paths ...string) *Watcher {
	t.Helper()
	files := map[string][]store.Ref{}
	for _, path := range paths {
		files[path] = bundleRef(strings.TrimPrefix(path, root+"/"))
	}
	w := &Watcher{
		roots: fileroot.Roots{root}, files: func() map[string][]store.Ref { return files }, blocking: direct,
		log: hclog.NewNullLogger(), known: new(pathSet), behind: nothing, polls: 1, // no poll reads files by turn
	}
	w.follow(t.Context())
	for _, p := range w.known.paths {
		p.confirmed = true
	}
	return w
}

// suspected returns the names of the resources that a poll has read.
func (w *Watcher) suspected(t testing.TB) string {
	t.Helper()
	w.polls = 1 + readEvery/2
	var names []string
	for _, ref := range w.poll(t.Context()) {
		names = append(names, ref.Name)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), " ")
}

// A poll detects each way of changing a file by its attributes alone.
func TestEveryKindOfChangeIsSeenWithoutReading(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string)
	}{
		{"a new size", func(t *testing.T, dir string) { writeText(t, dir+"/tls.crt", "longer than before") }},
		{"the same size and modification time", func(t *testing.T, dir string) {
			info, err := os.Stat(dir + "/tls.crt")
			must(t, err)
			for {
				writeText(t, dir+"/tls.crt", "other text")
				must(t, os.Chtimes(dir+"/tls.crt", info.ModTime(), info.ModTime()))
				now, err := os.Stat(dir + "/tls.crt")
				must(t, err)
				if now.Sys().(*syscall.Stat_t).Ctim != info.Sys().(*syscall.Stat_t).Ctim { // otherwise the change was within the same tick
					return
				}
			}
		}},
		{"a rename of a file with the same size and time", func(t *testing.T, dir string) {
			info, err := os.Stat(dir + "/tls.crt")
			must(t, err)
			writeText(t, dir+"/new", "other text")
			must(t, os.Chtimes(dir+"/new", info.ModTime(), info.ModTime()))
			must(t, os.Rename(dir+"/new", dir+"/tls.crt"))
		}},
		{"permissions", func(t *testing.T, dir string) { must(t, os.Chmod(dir+"/tls.crt", 0o644)) }},
		{"permissions of the directory", func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o750)) }},
		{"removed", func(t *testing.T, dir string) { must(t, os.Remove(dir+"/tls.crt")) }},
		{"replaced by a directory", func(t *testing.T, dir string) {
			must(t, os.Remove(dir+"/tls.crt"))
			must(t, os.Mkdir(dir+"/tls.crt", 0o700))
		}},
		{"replaced by a symlink to the same text", func(t *testing.T, dir string) {
			must(t, os.Rename(dir+"/tls.crt", dir+"/target"))
			must(t, os.Symlink("target", dir+"/tls.crt"))
		}},
		{"a directory replaced by a rename", func(t *testing.T, dir string) {
			writeText(t, dir+".new/tls.crt", "other text")
			must(t, os.Rename(dir, dir+".old"))
			must(t, os.Rename(dir+".new", dir))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := realTempDir(t)
			dir := filepath.Join(root, "pair")
			w := polled(t, root, writeText(t, dir+"/tls.crt", "first text"), writeText(t, root+"/other/tls.crt", "another"))
			if got := w.suspected(t); got != "" {
				t.Errorf("before any change %s is read", got)
			}
			tt.change(t, dir)
			if got := w.suspected(t); got != "pair/tls.crt" {
				t.Errorf("after the change %q is read", got)
			}
			if got := w.suspected(t); got != "" {
				t.Errorf("%s is read once more too early", got)
			}
			for _, p := range w.known.paths {
				p.since = p.since.Add(-confirmAfter)
			}
			if got := w.suspected(t); got != "pair/tls.crt" {
				t.Errorf("%q is read to confirm the first read", got)
			}
			if got := w.suspected(t); got != "" {
				t.Errorf("%s is read a third time", got)
			}
		})
	}
}

// Kubernetes updates a volume by giving its symlink ..data another target.
func TestASwappedVolumeIsSeenWithoutReading(t *testing.T) {
	root := realTempDir(t)
	for _, version := range []string{"..1", "..2"} {
		writeText(t, filepath.Join(root, version, "tls.crt"), "same size "+version)
	}
	must(t, os.Symlink("..1", root+"/..data"))
	must(t, os.Symlink("..data/tls.crt", root+"/tls.crt"))
	w := polled(t, root, root+"/tls.crt")
	must(t, os.Symlink("..2", root+"/..next"))
	must(t, os.Rename(root+"/..next", root+"/..data"))
	if got := w.suspected(t); got != "tls.crt" {
		t.Errorf("%q is read", got)
	}
	if _, ok := w.steps[root+"/..2/tls.crt"]; !ok {
		t.Errorf("the new target is not watched: %v", w.steps)
	}
}

func TestAFileThatAppearsIsSeen(t *testing.T) {
	root := realTempDir(t)
	w := polled(t, root, root+"/not/yet.pem")
	if got := w.suspected(t); got != "" {
		t.Errorf("%q is read", got)
	}
	writeText(t, root+"/not/yet.pem", "now")
	if got := w.suspected(t); got != "not/yet.pem" {
		t.Errorf("%q is read", got)
	}
}

// A mount over a directory sends no notification, and does not change the attributes
// in the parent directory.
func TestAMountOverADirectoryIsSeen(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread() // never unlocked, so that the thread ends with its namespace
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		t.Skipf("no mount namespaces here: %v", err)
	}
	must(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	root := realTempDir(t)
	writeText(t, root+"/other/tls.crt", "other text")
	w := polled(t, root, writeText(t, root+"/pair/tls.crt", "first text"))
	if err := syscall.Mount(root+"/other", root+"/pair", "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("no bind mounts here: %v", err)
	}
	defer syscall.Unmount(root+"/pair", syscall.MNT_DETACH)
	if got := w.suspected(t); got != "pair/tls.crt" {
		t.Errorf("%q is read", got)
	}
}

// Each poll reads the files that the gateway could not apply, or has replaced by
// older content.
func TestFilesThatAreNotLiveAreReadAtEachPoll(t *testing.T) {
	root := realTempDir(t)
	w := polled(t, root, writeText(t, root+"/a", "a"), writeText(t, root+"/b", "b"))
	w.behind = func(all []store.Ref) []store.Ref {
		if len(all) != 2 {
			t.Errorf("behind was called with %v", all)
		}
		return bundleRef("b")
	}
	for range 2 {
		if got := w.suspected(t); got != "b" {
			t.Errorf("%q is read", got)
		}
	}
}

// A resource that begins to use a known path is read, because the file may have changed
// since the resource's own read.
func TestAFileWithOneMoreUserIsReadAgain(t *testing.T) {
	root := realTempDir(t)
	path := writeText(t, root+"/a", "a")
	w := polled(t, root, path)
	w.files = func() map[string][]store.Ref {
		return map[string][]store.Ref{path: {{Kind: adminv1.Kind_KIND_TRUST_BUNDLE, Name: "a"}, {Kind: adminv1.Kind_KIND_TRUST_BUNDLE, Name: "second"}}}
	}
	if got := w.follow(t.Context()); len(got) != 1 || got[0].Name != "second" {
		t.Errorf("%v", got)
	}
	if got := w.follow(t.Context()); len(got) != 0 {
		t.Errorf("then %v", got)
	}
}

// A hanging file system delays no other file system, and blocks one goroutine, not one
// for each file. When it answers again, the poll detects changes made meanwhile.
func TestAHungFileSystemDelaysNoOther(t *testing.T) {
	root := realTempDir(t)
	var paths []string
	for _, name := range []string{"fine/1", "hung/1", "hung/2", "zfine/1"} {
		paths = append(paths, writeText(t, filepath.Join(root, name, "tls.crt"), "text"))
	}
	w := polled(t, root, paths...)
	for _, p := range w.known.paths { // acts as another file system
		if strings.Contains(p.path, "/hung/") {
			p.trace.Device = 1 << 40
		}
	}
	calls := 0
	var hanging sync.WaitGroup
	w.blocking = func(_ context.Context, f func()) error {
		if calls++; calls == 3 { // the calls for the roots and fine/1 come before hung/1
			began := make(chan struct{})
			hanging.Go(func() { f(); close(began) })
			<-began
			return context.DeadlineExceeded
		}
		f()
		return nil
	}
	writeText(t, paths[1], "changed")
	writeText(t, paths[3], "changed")
	if got := w.suspected(t); got != "zfine/1/tls.crt" || calls != 4 {
		t.Errorf("%q is read, after %d calls", got, calls)
	}
	hanging.Wait()

	w.stalls[0].call = &call{done: make(chan struct{})} // the call still hangs
	calls = 10
	if got := w.suspected(t); got != "" || calls != 13 {
		t.Errorf("%q is read, after %d calls", got, calls-10)
	}
	close(w.stalls[0].done)
	if got := w.suspected(t); got != "hung/1/tls.crt" {
		t.Errorf("once it answers %q is read", got)
	}
	if len(w.stalls) > 0 {
		t.Errorf("the file system still counts as hanging")
	}
}

func BenchmarkPoll(b *testing.B) {
	root := realTempDir(b)
	const pairs = 10_000
	var paths []string
	for i := range pairs {
		dir := filepath.Join(root, "certificates", "c"+string(rune('a'+i%26)), strings.Repeat("x", 3), strconv.Itoa(i))
		paths = append(paths, writeText(b, dir+"/tls.crt", "text"), writeText(b, dir+"/tls.key", "text"))
	}
	w := polled(b, root, paths...)
	pool := NewPool()
	w.blocking = func(ctx context.Context, f func()) error { return pool.Do(ctx, f) }
	b.ReportAllocs()
	for b.Loop() {
		if got := w.suspected(b); len(got) > 0 && strings.Count(got, " ") > 3*pairs/readEvery {
			b.Fatal("files are read")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/poll")
}
