package files

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
)

const (
	// confirmAfter is when a changed file is read a second time, at the next poll. It is
	// longer than a tick of any file system's clock, so that clock need not agree with this
	// machine's clock.
	confirmAfter = 10 * time.Second

	// readEvery is the number of polls after which each file is read even if its
	// attributes are unchanged: some file systems keep no times.
	readEvery = 60
)

// follow takes over the live resources' paths. It returns the resources whose files may
// have changed unnoticed: those with new paths, and those in directories that were not
// watched before.
func (w *Watcher) follow(ctx context.Context) (unseen []store.Ref) {
	fresh, users, changed := w.known.update(w.files())
	if !changed {
		return nil
	}
	_, moved := w.survey(ctx, byDirectory(slices.SortedFunc(slices.Values(fresh), comparePaths)))
	return append(users, w.watch(ctx, moved)...)
}

// retrace follows paths again. It returns the resources in directories that were not
// watched before.
func (w *Watcher) retrace(ctx context.Context, paths []*watched) (unseen []store.Ref) {
	if _, moved := w.survey(ctx, byDirectory(paths)); len(moved) > 0 || w.unwatched() {
		return w.watch(ctx, moved)
	}
	return nil
}

// unwatched reports whether some directories lack a watch. A directory that was removed or
// renamed loses its watch, and a new directory may have taken its place.
func (w *Watcher) unwatched() bool {
	if w.notify == nil {
		return w.denied
	}
	return len(w.notify.WatchList()) != w.dirs
}

// notifies reports whether the system sends notifications, once there is a directory to
// watch.
func (w *Watcher) notifies() bool {
	if w.notify != nil || w.open == nil || w.dirs == 0 {
		return w.notify != nil
	}
	notify, err := w.open()
	if err != nil {
		if !w.denied {
			w.log.Warn("cannot watch files: checking them at an interval instead", "interval", pollEvery.String(), "error", err)
		}
		w.denied = true
		return false
	}
	w.notify, w.denied = notify, false
	return true
}

// poll looks at all paths. It returns the resources to read: resources whose files have
// new attributes, whose live content differs from the last read, or which must be
// confirmed, and the few that this poll reads in any case.
func (w *Watcher) poll(ctx context.Context) (suspects []store.Ref) {
	changed, moved := w.survey(ctx, w.known.dirs)
	for _, p := range changed {
		suspects = append(suspects, p.refs...)
	}
	turn := w.polls % readEvery
	w.polls++
	hung := map[store.Ref]bool{}
	for _, dir := range w.known.dirs {
		hangs := w.hangs(dir)
		for _, p := range dir {
			confirm := !p.confirmed && !p.since.IsZero() && time.Since(p.since) >= confirmAfter
			switch {
			case hangs:
				for _, ref := range p.refs {
					hung[ref] = true
				}
			case confirm, p.turn() == turn:
				p.confirmed = p.confirmed || confirm
				suspects = append(suspects, p.refs...)
			}
		}
	}
	suspects = append(suspects, w.behind(w.known.all)...)
	if len(moved) > 0 || w.unwatched() {
		suspects = append(suspects, w.watch(ctx, moved)...)
	}
	return slices.DeleteFunc(suspects, func(ref store.Ref) bool { return hung[ref] })
}

// survey traces paths, grouped by directory. It returns the paths with a new stamp,
// and those along which a directory or symlink has changed. Paths on a file system that hangs keep their
// last trace, and are traced again once it answers.
func (w *Watcher) survey(ctx context.Context, dirs [][]*watched) (changed, moved []*watched) {
	if len(dirs) == 0 {
		return nil, nil
	}
	w.stalls = slices.DeleteFunc(w.stalls, stall.ended)
	var pass *fileroot.Survey
	if _, err := w.run(ctx, func() { pass = w.roots.Survey() }); err != nil {
		w.log.Debug("the file roots hang", "error", err)
		return nil, nil
	}
	for len(dirs) > 0 {
		var batch []*watched
		batch, dirs = nextBatch(dirs)
		if w.hangs(batch) {
			continue
		}
		traces, steps := make([]fileroot.Trace, len(batch)), make([][]string, len(batch))
		call, err := w.run(ctx, func() {
			for i, p := range batch {
				traces[i] = pass.Trace(p.path)
				if p.leadsElsewhere(traces[i]) {
					steps[i] = pass.Steps(p.path)
				}
			}
		})
		switch {
		case err == nil:
		case ctx.Err() != nil || !call.began.Load(): // too many other calls hang
			return changed, moved
		default:
			w.stalls = append(w.stalls, stall{call, filepath.Dir(batch[0].path), batch[0].trace.Device})
			continue
		}
		for i, p := range batch {
			if p.leadsElsewhere(traces[i]) {
				p.steps = steps[i]
				moved = append(moved, p)
			}
			if p.seen(traces[i]) {
				changed = append(changed, p)
			}
		}
	}
	return changed, moved
}

// maxBatch bounds how many paths are traced in one call.
const maxBatch = 512

// nextBatch returns the paths to trace in one call, and the rest. A batch holds the paths
// in one directory, or in several directories on the same device, which would hang
// together.
func nextBatch(dirs [][]*watched) (batch []*watched, rest [][]*watched) {
	n, device := 1, dirs[0][0].trace.Device
	for size := len(dirs[0]); device != 0 && n < len(dirs) && dirs[n][0].trace.Device == device && size < maxBatch; n++ {
		size += len(dirs[n])
	}
	return slices.Concat(dirs[:n]...), dirs[n:]
}

// A call is a function that may hang.
type call struct {
	began atomic.Bool
	done  chan struct{}
}

// run calls f through blocking. After an error the caller must not touch what f
// writes, until the call is done.
func (w *Watcher) run(ctx context.Context, f func()) (*call, error) {
	c := &call{done: make(chan struct{})}
	return c, w.blocking(ctx, func() {
		c.began.Store(true)
		defer close(c.done)
		f()
	})
}

// A stall is a trace that hangs. The watcher skips its directory until it ends, and also
// all files on the same device, because each attempt would hold a slot of the Pool.
type stall struct {
	*call
	directory string
	device    uint64 // 0 if unknown
}

func (s stall) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// hangs reports whether paths in one directory are on a file system that hangs.
func (w *Watcher) hangs(dir []*watched) bool {
	return slices.ContainsFunc(w.stalls, func(s stall) bool {
		return s.directory == filepath.Dir(dir[0].path) || s.device != 0 && s.device == dir[0].trace.Device
	})
}

// watch watches the directories along all paths, and no others. It renews the watches
// along moved, because another directory may have replaced a watched one. It returns the
// resources in directories that were not watched before.
func (w *Watcher) watch(ctx context.Context, moved []*watched) (unseen []store.Ref) {
	w.steps = make(map[string][]store.Ref, len(w.steps))
	dirs := map[string]bool{}
	for _, dir := range w.known.dirs {
		for _, p := range dir {
			for _, step := range p.steps {
				w.steps[step] = append(w.steps[step], p.refs...)
				dirs[filepath.Dir(step)] = true
			}
		}
	}
	if w.dirs = len(dirs); !w.notifies() {
		return nil
	}
	again := map[string]bool{}
	for _, p := range moved {
		for _, step := range p.steps {
			again[filepath.Dir(step)] = true
		}
	}
	added := w.watchOnly(ctx, dirs, again)
	for step, refs := range w.steps {
		if added[filepath.Dir(step)] {
			unseen = append(unseen, refs...)
		}
	}
	return unseen
}

// watchOnly watches exactly dirs, and renews the watches of the directories in again.
// It returns the directories that were not watched before.
func (w *Watcher) watchOnly(ctx context.Context, dirs, again map[string]bool) (added map[string]bool) {
	present := map[string]bool{}
	for _, dir := range w.notify.WatchList() {
		present[dir] = true
		if !dirs[dir] {
			// The watch of a removed directory is already gone.
			if err := w.notify.Remove(dir); err != nil && !errors.Is(err, fsnotify.ErrNonExistentWatch) {
				w.log.Debug("cannot remove the watch of a directory", "directory", dir, "error", err)
			}
		}
	}
	added = map[string]bool{}
	failed := map[string]bool{}
	var example string
	var cause error
	for dir := range dirs {
		if present[dir] && !again[dir] {
			continue
		}
		if err := w.add(ctx, dir); err != nil {
			if failed[dir] = true; !w.failed[dir] {
				example, cause = dir, err
			}
			continue
		}
		if !present[dir] {
			added[dir] = true
		}
	}
	w.failed = failed
	if cause != nil {
		w.log.Warn("cannot watch directories: checking them at an interval instead", "directories", len(failed), "example", example, "interval", pollEvery.String(), "error", cause)
	}
	return added
}

func (w *Watcher) add(ctx context.Context, dir string) error {
	var failed error
	if err := w.blocking(ctx, func() { failed = w.notify.Add(dir) }); err != nil {
		return err
	}
	return failed
}
