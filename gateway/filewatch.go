package gateway

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
	// fileQuiet is how long files must be left alone before they are read: who
	// writes a certificate and then its key is given the time to.
	fileQuiet = 200 * time.Millisecond

	// fileWait is the longest that files which are not left alone go unread.
	fileWait = 2 * time.Second

	// filePoll is how often files are looked at without being told to. Network
	// file systems tell of no changes, and a system may run out of watches.
	filePoll = time.Minute
)

// A fileWatcher notices when files may have changed. It watches the directories
// that the paths lead through, links followed, and not the files: an editor that
// renames and a volume of Kubernetes put another file in the place of the first.
type fileWatcher struct {
	roots fileroot.Roots

	// files returns every path and the resources that come from it.
	files func() map[string][]store.Ref

	// take is called with the resources whose files may have changed.
	take func(context.Context, []store.Ref)

	log  hclog.Logger
	wake chan struct{} // what files returns may have changed

	// The rest belongs to run.
	notify *fsnotify.Watcher // nil: the system has none left
	known  map[string][]store.Ref
	steps  map[string][]store.Ref // who must be looked at when a name changes
	failed map[string]bool        // directories that could not be watched
}

func newFileWatcher(g *Gateway, log hclog.Logger) *fileWatcher {
	intake := &fileIntake{gateway: g, refused: map[store.Ref]snapshot.Digest{}}
	return &fileWatcher{
		roots:  g.compiler.FileRoots,
		files:  func() map[string][]store.Ref { return g.live.Load().Files() },
		take:   intake.take,
		log:    log,
		wake:   make(chan struct{}, 1),
		failed: map[string]bool{},
	}
}

// filesChanged tells the watcher that other files may be read now. It never
// blocks.
func (w *fileWatcher) filesChanged() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run watches until ctx ends.
func (w *fileWatcher) run(ctx context.Context) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		w.log.Warn("files cannot be watched, and are looked at from time to time", "interval", filePoll.String(), "error", err)
	} else {
		w.notify = notify
		defer notify.Close()
	}
	w.loop(ctx)
}

func (w *fileWatcher) loop(ctx context.Context) {
	var events chan fsnotify.Event
	var failures chan error
	if w.notify != nil {
		events, failures = w.notify.Events, w.notify.Errors
	}
	poll := time.NewTicker(filePoll)
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
		settled.Reset(min(fileQuiet, time.Until(since.Add(fileWait))))
	}

	suspect(w.follow()...)
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			if !maps.EqualFunc(w.files(), w.known, slices.Equal) {
				suspect(w.follow()...)
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
			suspect(w.follow()...) // the paths may lead elsewhere by now
		}
	}
}

// all returns every resource that comes from files.
func (w *fileWatcher) all() []store.Ref {
	return slices.Concat(slices.Collect(maps.Values(w.known))...)
}

// follow sees where all paths lead now, and watches the directories on the way.
// It returns the resources that were not watched as they are now: their files
// may have changed unseen.
func (w *fileWatcher) follow() (unseen []store.Ref) {
	before := w.known
	w.known, w.steps = w.files(), map[string][]store.Ref{}
	dirs := map[string]bool{}
	for path, refs := range w.known {
		if before[path] == nil {
			unseen = append(unseen, refs...)
		}
		for _, step := range w.roots.Trace(path) {
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
		if err := w.notify.Add(dir); err != nil {
			if !w.failed[dir] {
				w.log.Warn("a directory cannot be watched; what changes in it is noticed later", "directory", dir, "interval", filePoll.String(), "error", err)
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
