package files

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
)

const (
	// quiet is how long files must be unchanged before they are read, so that a process
	// can write a certificate and then its key.
	quiet = 200 * time.Millisecond

	// maxWait bounds how long reading is delayed if files keep changing.
	maxWait = 2 * time.Second

	// pollEvery is how often files are checked without a notification. Network file
	// systems send no notifications, and a system may run out of watches.
	pollEvery = time.Minute
)

// A Watcher detects when files may have changed. It watches the directories along each
// path, with symlinks resolved, and not the files: editors and Kubernetes volumes
// replace a file by renaming another one.
type Watcher struct {
	roots fileroot.Roots

	// files returns every path and the resources that use it.
	files func() map[string][]store.Ref

	// take receives the resources whose files may have changed.
	take func(context.Context, []store.Ref)

	// blocking runs a function that may hang on a file system. An error means that the
	// function is still running.
	blocking func(context.Context, func()) error

	log  hclog.Logger
	wake chan struct{} // receives when the result of files may have changed
	look chan struct{} // receives when all files are to be checked

	// The rest belongs to run.
	notify *fsnotify.Watcher // nil: the system has no inotify instance left
	known  map[string][]store.Ref
	steps  map[string][]store.Ref // the resources to check when a name changes
	failed map[string]bool        // directories that could not be watched
}

// NewWatcher returns a watcher of the files of the gateway's live resources. blocking
// runs functions that may hang on a file system, like snapshot.Compiler.Blocking.
func NewWatcher(g Gateway, roots fileroot.Roots, blocking func(context.Context, func()) error, log hclog.Logger) *Watcher {
	t := &intake{gateway: g, log: log, refused: map[store.Ref]snapshot.Digest{}}
	return &Watcher{
		roots:    roots,
		blocking: blocking,
		files:    func() map[string][]store.Ref { return g.Live().Files() },
		take:     t.take,
		log:      log,
		wake:     make(chan struct{}, 1),
		look:     make(chan struct{}, 1),
		failed:   map[string]bool{},
	}
}

// Changed notifies the watcher that the set of files may have changed. It never blocks.
func (w *Watcher) Changed() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// CheckAll checks all files soon. It never blocks.
func (w *Watcher) CheckAll() {
	select {
	case w.look <- struct{}{}:
	default:
	}
}

// Run watches until ctx ends. It then returns even if a file system hangs.
func (w *Watcher) Run(ctx context.Context) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		w.log.Warn("cannot watch files: checking them at an interval instead", "interval", pollEvery.String(), "error", err)
	} else {
		w.notify = notify
		defer notify.Close()
	}
	w.loop(ctx)
}

func (w *Watcher) loop(ctx context.Context) {
	var events chan fsnotify.Event
	var failures chan error
	if w.notify != nil {
		events, failures = w.notify.Events, w.notify.Errors
	}
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	settled := time.NewTimer(0)
	settled.Stop()
	defer settled.Stop()

	suspects := map[store.Ref]bool{}
	var since time.Time // when the first of them may have changed
	suspect := func(refs ...store.Ref) {
		if len(refs) == 0 {
			return
		}
		if len(suspects) == 0 {
			since = time.Now()
		}
		for _, ref := range refs {
			suspects[ref] = true
		}
		settled.Reset(min(quiet, time.Until(since.Add(maxWait))))
	}

	suspect(w.follow(ctx)...)
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			if !maps.EqualFunc(w.files(), w.known, slices.Equal) {
				suspect(w.follow(ctx)...)
			}
		case e := <-events:
			suspect(w.steps[filepath.Clean(e.Name)]...) // a name in / has two slashes
		case err := <-failures:
			w.log.Debug("file notifications may have been missed", "error", err)
			suspect(w.all()...)
		case <-poll.C:
			suspect(w.all()...)
		case <-w.look:
			suspect(w.all()...)
		case <-settled.C:
			refs := slices.SortedFunc(maps.Keys(suspects), store.Ref.Compare)
			clear(suspects)
			w.take(ctx, refs)
			suspect(w.follow(ctx)...) // the paths may resolve differently now
		}
	}
}

// all returns every resource that uses files.
func (w *Watcher) all() []store.Ref {
	return slices.Concat(slices.Collect(maps.Values(w.known))...)
}

// follow resolves all paths and watches the directories along them. It returns the
// resources with directories that were not watched before: their files may have changed
// without a notification.
func (w *Watcher) follow(ctx context.Context) (unseen []store.Ref) {
	before := w.known
	w.known, w.steps = w.files(), map[string][]store.Ref{}
	dirs := map[string]bool{}
	for path, refs := range w.known {
		if before[path] == nil {
			unseen = append(unseen, refs...)
		}
		for _, step := range w.trace(ctx, path) {
			w.steps[step] = append(w.steps[step], refs...)
			dirs[filepath.Dir(step)] = true
		}
	}
	if w.notify == nil {
		return unseen
	}

	watched := map[string]bool{}
	for _, dir := range w.notify.WatchList() {
		watched[dir] = true
		if !dirs[dir] {
			// A removed directory has no watch any more.
			if err := w.notify.Remove(dir); err != nil && !errors.Is(err, fsnotify.ErrNonExistentWatch) {
				w.log.Debug("cannot remove the watch of a directory", "directory", dir, "error", err)
			}
		}
	}
	added := map[string]bool{}
	for dir := range dirs {
		if watched[dir] {
			continue
		}
		if err := w.add(ctx, dir); err != nil {
			if !w.failed[dir] {
				w.log.Warn("cannot watch a directory: checking it at an interval instead", "directory", dir, "interval", pollEvery.String(), "error", err)
			}
			w.failed[dir] = true
			continue
		}
		delete(w.failed, dir)
		added[dir] = true
	}
	for step, refs := range w.steps {
		if added[filepath.Dir(step)] {
			unseen = append(unseen, refs...)
		}
	}
	return unseen
}

// trace returns the names along the path to the file.
func (w *Watcher) trace(ctx context.Context, path string) []string {
	var steps []string
	if err := w.blocking(ctx, func() { steps = w.roots.Trace(path) }); err != nil {
		return nil // the next poll tries again
	}
	return steps
}

func (w *Watcher) add(ctx context.Context, dir string) error {
	var failed error
	if err := w.blocking(ctx, func() { failed = w.notify.Add(dir) }); err != nil {
		return err
	}
	return failed
}
