package files

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A look records when resources were read, and which.
type look struct {
	after time.Duration
	names string
}

// watchWithout runs a watcher on a system without free watches, in a
// testing/synctest bubble. It returns the looks so far.
func watchWithout(t *testing.T, roots fileroot.Roots, files func() map[string][]store.Ref) (w *Watcher, looks func() []look) {
	var seen []look
	began := time.Now()
	w = &Watcher{
		roots: roots, files: files, blocking: direct, log: hclog.NewNullLogger(), wake: make(chan struct{}, 1), known: new(pathSet), behind: nothing,
		take: func(_ context.Context, refs []store.Ref) {
			l := look{after: time.Since(began)}
			for _, r := range refs {
				l.names += r.Name
			}
			seen = append(seen, l)
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.loop(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w, func() []look { synctest.Wait(); return slices.Clone(seen) }
}

// direct runs f at once.
func direct(_ context.Context, f func()) error { f(); return nil }

// nothing stands for a gateway that has applied all files as they were read.
func nothing([]store.Ref) []store.Ref { return nil }

func bundleRef(name string) []store.Ref {
	return []store.Ref{{Kind: adminv1.Kind_KIND_TRUST_BUNDLE, Name: name}}
}

// Unchanged files are read at first, once more in case a change left no trace, and
// then rarely.
func TestUnchangedFilesAreRarelyRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, err := filepath.EvalSymlinks(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		files := map[string][]store.Ref{}
		for _, name := range []string{"a", "b"} {
			files[writeText(t, filepath.Join(dir, name), name)] = bundleRef(name)
		}
		_, looks := watchWithout(t, fileroot.Roots{dir}, func() map[string][]store.Ref { return files })
		time.Sleep((readEvery+1)*pollEvery + maxWait)
		got := looks()
		if len(got) < 2 || got[0] != (look{quiet, "ab"}) || got[1] != (look{pollEvery + quiet, "ab"}) {
			t.Fatalf("looked at %v", got)
		}
		again := map[rune]int{}
		for _, l := range got[2:] {
			for _, name := range l.names {
				again[name]++
			}
		}
		if len(got) > 4 || again['a'] != 1 || again['b'] != 1 {
			t.Errorf("looked at %v within %d polls", got, readEvery+1)
		}
	})
}

func TestOnlyNewPathsAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := map[string][]store.Ref{"/a.pem": bundleRef("a")}
		w, looks := watchWithout(t, nil, func() map[string][]store.Ref { return files })
		time.Sleep(time.Second)
		looks()
		w.Changed() // an edit unrelated to files
		time.Sleep(time.Second)
		looks()
		files = map[string][]store.Ref{"/a.pem": bundleRef("a"), "/b.pem": bundleRef("b")}
		w.Changed()
		time.Sleep(time.Second)
		want := []look{{quiet, "a"}, {2*time.Second + quiet, "b"}}
		if got := looks(); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

func TestFilesThatKeepChangingAreReadAfterMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		w, looks := watchWithout(t, nil, func() map[string][]store.Ref {
			n++ // returns another path each time
			return map[string][]store.Ref{fmt.Sprintf("/%d.pem", n): bundleRef("a")}
		})
		for range 100 {
			w.Changed()
			time.Sleep(quiet / 4)
		}
		got := looks()
		if len(got) < 2 || len(got) > 4 || got[0].after != maxWait {
			t.Errorf("5 s of changes were looked at %v", got)
		}
	})
}

// Directories that no path uses any more are no longer watched, or the system would run
// out of watches.
func TestOnlyDirectoriesThatHoldFilesAreWatched(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := func(d string) string { return filepath.Join(dir, d, "ca.pem") }
	for _, d := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path(d), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	go func() { // the watcher blocks while its events are not read
		defer close(drained)
		for range notify.Events {
		}
	}()
	defer func() { notify.Close(); <-drained }()
	files := map[string][]store.Ref{path("a"): bundleRef("a"), path("b"): bundleRef("b"), filepath.Join(dir, "c", "not-yet.pem"): bundleRef("c")}
	w := &Watcher{
		roots: fileroot.Roots{dir}, files: func() map[string][]store.Ref { return files }, blocking: direct,
		log: hclog.NewNullLogger(), notify: notify, known: new(pathSet), behind: nothing,
	}
	expect := func(unseen []store.Ref, names string, dirs ...string) {
		t.Helper()
		got := map[string]bool{}
		for _, r := range unseen {
			got[r.Name] = true
		}
		if s := strings.Join(slices.Sorted(maps.Keys(got)), ""); s != names {
			t.Errorf("unseen are %q, want %q", s, names)
		}
		if watched := slices.Sorted(slices.Values(notify.WatchList())); !slices.Equal(watched, dirs) {
			t.Errorf("watched are %v, want %v", watched, dirs)
		}
	}
	up := filepath.Dir(dir)
	retrace := func() []store.Ref { return w.retrace(t.Context(), w.known.of(w.known.all)) }
	expect(w.follow(t.Context()), "abc", up, dir, filepath.Dir(path("a")), filepath.Dir(path("b")))
	expect(w.follow(t.Context()), "", up, dir, filepath.Dir(path("a")), filepath.Dir(path("b")))
	delete(files, path("b"))
	expect(w.follow(t.Context()), "", up, dir, filepath.Dir(path("a")))
	if err := os.Mkdir(filepath.Join(dir, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	expect(retrace(), "c", up, dir, filepath.Dir(path("a")), filepath.Join(dir, "c"))
	if err := os.RemoveAll(filepath.Dir(path("a"))); err != nil {
		t.Fatal(err)
	}
	for len(notify.WatchList()) != 3 { // waits until the watch of the removed directory is gone
		runtime.Gosched()
	}
	clear(files)
	expect(w.follow(t.Context()), "")
}

// Each user of a system may have few inotify instances (128 by default), so a gateway
// without files takes none. One that was refused tries again, or it would notice changes only
// once a minute until its restart.
func TestInotifyIsOpenedWhenItIsNeededAndAvailable(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]store.Ref{}
	var opened int
	fault := syscall.EMFILE
	w := &Watcher{
		roots: fileroot.Roots{dir}, files: func() map[string][]store.Ref { return files }, blocking: direct,
		log: hclog.NewNullLogger(), known: new(pathSet), failed: map[string]bool{}, behind: nothing,
		open: func() (*fsnotify.Watcher, error) {
			if opened++; opened == 1 {
				return nil, fault
			}
			return fsnotify.NewWatcher()
		},
	}
	w.follow(t.Context())
	if opened != 0 {
		t.Fatalf("opened %d times without a file", opened)
	}
	files[writeText(t, filepath.Join(dir, "a"), "a")] = bundleRef("a")
	w.follow(t.Context())
	if opened != 1 || w.notify != nil {
		t.Fatalf("opened %d times", opened)
	}
	w.poll(t.Context())
	if opened != 2 || w.notify == nil {
		t.Fatalf("opened %d times, and notifies: %v", opened, w.notify != nil)
	}
	defer w.notify.Close()
	w.poll(t.Context())
	if watched := w.notify.WatchList(); opened != 2 || !slices.Contains(watched, dir) {
		t.Errorf("opened %d times; watched are %v", opened, watched)
	}
}
