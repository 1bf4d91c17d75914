package files

import (
	"cmp"
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
	// quiet is how long files must be left alone before they are read: who
	// writes a certificate and then its key is given the time to.
	quiet = 200 * time.Millisecond

	// maxWait is the longest that files which are not left alone go unread.
	maxWait = 2 * time.Second

	// pollEvery is how often files are looked at without being told to. Network
	// file systems tell of no changes, and a system may run out of watches.
	pollEvery = time.Minute
)

// A Watcher notices when files may have changed. It watches the directories
// that the paths lead through, links followed, and not the files: an editor that
// renames and a volume of Kubernetes put another file in the place of the first.
type Watcher struct {
	roots fileroot.Roots

	// files returns every path and the resources that come from it.
	files func() map[string][]store.Ref

	// take is called with the resources whose files may have changed.
	take func(context.Context, []store.Ref)

	// blocking runs what may hang on a file system. An error says that it has not
	// ended.
	blocking func(context.Context, func()) error

	log  hclog.Logger
	wake chan struct{} // what files returns may have changed

	// The rest belongs to run.
	notify *fsnotify.Watcher // nil: the system has none left
	known  map[string][]store.Ref
	steps  map[string][]store.Ref // who must be looked at when a name changes
	failed map[string]bool        // directories that could not be watched
}

// NewWatcher returns a watcher of the files that what is live at the gateway
// comes from. blocking runs what may hang on a file system, as
// snapshot.Compiler.Blocking does.
func NewWatcher(g Gateway, roots fileroot.Roots, blocking func(context.Context, func()) error, log hclog.Logger) *Watcher {
	t := &intake{gateway: g, log: log, refused: map[store.Ref]snapshot.Digest{}}
	return &Watcher{
		roots:    roots,
		blocking: blocking,
		files:    func() map[string][]store.Ref { return g.Live().Files() },
		take:     t.take,
		log:      log,
		wake:     make(chan struct{}, 1),
		failed:   map[string]bool{},
	}
}

// Changed tells the watcher that other files may be read now. It never
// blocks.
func (w *Watcher) Changed() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Run watches until ctx ends. It returns then even if a file system hangs.
func (w *Watcher) Run(ctx context.Context) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		w.log.Warn("files cannot be watched, and are looked at from time to time", "interval", pollEvery.String(), "error", err)
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
	var since time.Time // when the first of them was suspected
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
			suspect(w.steps[filepath.Clean(e.Name)]...) // it has two slashes if it is in /
		case err := <-failures:
			w.log.Debug("changes of files may have been missed", "error", err)
			suspect(w.all()...)
		case <-poll.C:
			suspect(w.all()...)
		case <-settled.C:
			refs := slices.SortedFunc(maps.Keys(suspects), func(a, b store.Ref) int {
				return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
			})
			clear(suspects)
			w.take(ctx, refs)
			suspect(w.follow(ctx)...) // the paths may lead elsewhere by now
		}
	}
}

// all returns every resource that comes from files.
func (w *Watcher) all() []store.Ref {
	return slices.Concat(slices.Collect(maps.Values(w.known))...)
}

// follow sees where all paths lead now, and watches the directories on the way.
// It returns the resources that were not watched as they are now: their files
// may have changed unseen.
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
			// It may be gone, and its watch with it.
			if err := w.notify.Remove(dir); err != nil && !errors.Is(err, fsnotify.ErrNonExistentWatch) {
				w.log.Debug("a directory is still watched", "directory", dir, "error", err)
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
				w.log.Warn("a directory cannot be watched; what changes in it is noticed later", "directory", dir, "interval", pollEvery.String(), "error", err)
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

// trace returns the names on the way to the file at path.
func (w *Watcher) trace(ctx context.Context, path string) []string {
	var steps []string
	if err := w.blocking(ctx, func() { steps = w.roots.Trace(path) }); err != nil {
		return nil // looked at again in a minute
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
