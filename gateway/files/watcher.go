package files

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
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
// path, with symlinks resolved, and not the files, because editors and Kubernetes
// volumes replace a file by renaming another one. Every pollEvery it compares the
// attributes of all files with their last values.
type Watcher struct {
	roots fileroot.Roots

	// files returns every path and the resources that use it.
	files func() map[string][]store.Ref

	// take reads the files of resources and applies the changes.
	take func(context.Context, []store.Ref)

	// behind returns the resources whose live content differs from the last read of
	// their files.
	behind func([]store.Ref) []store.Ref

	// blocking runs a function that may hang on a file system. An error means that the
	// function is still running.
	blocking func(context.Context, func()) error

	log  hclog.Logger
	wake chan struct{} // receives a value when the result of files may have changed
	look chan struct{} // receives a value when all files must be read

	// open makes notify when there is a directory to watch. It fails if the system has no
	// inotify instance left; the next poll then tries again. Nil: files are only polled.
	open func() (*fsnotify.Watcher, error)

	// The rest belongs to run.
	notify *fsnotify.Watcher // nil until open has succeeded
	denied bool              // open failed the last time
	known  *pathSet
	steps  map[string][]store.Ref // the resources to read when a name changes
	dirs   int                    // directories of steps
	failed map[string]bool        // directories that could not be watched
	stalls []stall
	polls  int
}

// NewWatcher returns a watcher of the files of the gateway's live resources. blocking
// runs functions that may hang on a file system, like snapshot.Compiler.Blocking.
func NewWatcher(g Gateway, roots fileroot.Roots, blocking func(context.Context, func()) error, log hclog.Logger) *Watcher {
	t := newIntake(g, log)
	return &Watcher{
		roots:    roots,
		blocking: blocking,
		files:    func() map[string][]store.Ref { return g.Live().Files() },
		take:     t.take,
		behind:   t.behind,
		open:     fsnotify.NewWatcher,
		log:      log,
		wake:     make(chan struct{}, 1),
		look:     make(chan struct{}, 1),
		known:    new(pathSet),
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

// CheckAll reads all files soon. It never blocks.
func (w *Watcher) CheckAll() {
	select {
	case w.look <- struct{}{}:
	default:
	}
}

// Run watches until ctx ends. It then returns even if a file system hangs.
func (w *Watcher) Run(ctx context.Context) {
	w.loop(ctx)
	if w.notify != nil {
		w.notify.Close()
	}
}

func (w *Watcher) loop(ctx context.Context) {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	settled := time.NewTimer(0)
	settled.Stop()
	defer settled.Stop()

	suspects := map[store.Ref]bool{}
	var since time.Time // when the first suspected file may have changed
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
		var events chan fsnotify.Event
		var failures chan error
		if w.notify != nil {
			events, failures = w.notify.Events, w.notify.Errors
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			suspect(w.follow(ctx)...)
		case e := <-events:
			suspect(w.steps[filepath.Clean(e.Name)]...) // a name in / has two slashes
		case err := <-failures:
			w.log.Debug("file notifications may have been missed", "error", err)
			suspect(w.known.all...)
		case <-poll.C:
			suspect(w.poll(ctx)...)
		case <-w.look:
			suspect(w.known.all...)
		case <-settled.C:
			refs := slices.SortedFunc(maps.Keys(suspects), store.Ref.Compare)
			clear(suspects)
			w.take(ctx, refs)
			suspect(w.retrace(ctx, w.known.of(refs))...) // the paths may resolve differently now
		}
	}
}
