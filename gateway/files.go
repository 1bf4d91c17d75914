package gateway

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// fileRoots returns the directories that files may be read below.
func fileRoots(o Options) (fileroot.Roots, error) {
	dirs := o.FileRoots
	if dirs == nil {
		dirs = []string{o.DataDir, "/etc/drawbridge"}
	}
	var roots fileroot.Roots
	for _, dir := range dirs {
		if dir == "" {
			return nil, errors.New("a file root is empty: it must be a directory")
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("file root %s: %w", dir, err)
		}
		roots = append(roots, abs)
	}
	return roots, nil
}

// A fileIntake makes what watched files hold live: those that changed as one
// edit. What cannot be used leaves what is live as it is, and is told of once
// for each content. It belongs to one goroutine.
type fileIntake struct {
	gateway *Gateway
	refused map[store.Ref]snapshot.Digest // what was told of last
}

// take looks at the files of resources, and applies those that are not as they
// are live.
func (t *fileIntake) take(ctx context.Context, refs []store.Ref) {
	snap := t.gateway.live.Load()
	var changed []fileChange
	for _, ref := range refs {
		r := snap.State().Get(ref.Kind, ref.Name)
		if r == nil {
			delete(t.refused, ref)
			continue
		}
		digest := t.gateway.compiler.FileDigest(r)
		if digest == snap.FileDigest(ref) {
			delete(t.refused, ref)
			continue
		}
		changed = append(changed, fileChange{ref, r, digest})
	}
	t.apply(ctx, changed)
}

// A fileChange is a resource whose files are not as they are live.
type fileChange struct {
	ref      store.Ref
	resource store.Resource
	digest   snapshot.Digest // of the files as they are now
}

func (c fileChange) path() invalid.Path {
	return invalid.Path(store.KindName(c.ref.Kind)).Key(c.ref.Name)
}

// apply applies all changes that can be. What fails for a reason of the
// gateway's own is left for the next look.
func (t *fileIntake) apply(ctx context.Context, changes []fileChange) {
	if len(changes) == 0 || ctx.Err() != nil {
		return
	}
	edit := store.Edit{Comment: fileComment(changes)}
	for _, c := range changes {
		// The resource carries its etag: if it was replaced meanwhile, this put
		// is refused, and the replacement has read the files itself.
		edit.Puts = append(edit.Puts, store.Put{Path: c.path(), Resource: c.resource})
	}
	result, err := t.gateway.Apply(ctx, edit)
	var faults *invalid.Error
	switch {
	case err == nil:
		t.loaded(result)
		return
	case !errors.As(err, &faults) || faults.Worst() == invalid.Unavailable:
		if ctx.Err() == nil {
			t.gateway.log.Warn("changed files cannot be taken up now", "error", err)
		}
		return
	}
	var fine []fileChange
	for _, c := range changes {
		if own := faultsOf(c, faults); len(own) > 0 {
			t.refuse(c, own)
		} else {
			fine = append(fine, c)
		}
	}
	switch {
	case len(fine) < len(changes):
		t.apply(ctx, fine)
	case len(fine) == 1: // something that uses it does not put up with it
		t.refuse(fine[0], faults.Faults)
	default:
		for i := range fine {
			t.apply(ctx, fine[i:i+1])
		}
	}
}

// faultsOf returns the faults of one resource, with paths relative to it.
func faultsOf(c fileChange, all *invalid.Error) []invalid.Fault {
	var own []invalid.Fault
	for _, f := range all.Faults {
		if rest, ok := strings.CutPrefix(string(f.Field), string(c.path())+"."); ok {
			f.Field = invalid.Path(rest)
			own = append(own, f)
		}
	}
	return own
}

// refuse tells why files are not taken up, unless it was told of the same
// content before.
func (t *fileIntake) refuse(c fileChange, why []invalid.Fault) {
	var problems []string
	for _, f := range why {
		if f.Class != invalid.Conflict { // replaced meanwhile
			problems = append(problems, f.String())
		}
	}
	if len(problems) == 0 || t.refused[c.ref] == c.digest {
		return
	}
	t.refused[c.ref] = c.digest
	t.gateway.fileEvent(c.ref, &adminv1.Event{
		Type: adminv1.EventType_EVENT_TYPE_FILE_REFUSED, Reason: adminv1.Reason_REASON_LOCAL_CONFIG, Message: strings.Join(problems, "; "),
	})
}

// loaded tells what was taken up.
func (t *fileIntake) loaded(result *store.Result) {
	for _, c := range result.Changes {
		ref := store.Ref{Kind: c.Kind, Name: c.Name}
		delete(t.refused, ref)
		if c.Action == adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED {
			continue
		}
		t.gateway.fileEvent(ref, &adminv1.Event{
			Type: adminv1.EventType_EVENT_TYPE_FILE_LOADED, Revision: result.State.Revision(),
			Message: "now as in " + strings.Join(listed(snapshot.FilePaths(result.State.Get(c.Kind, c.Name)), maxPathsTold), ", "),
		})
	}
	for _, w := range result.Warnings {
		t.gateway.log.Warn("file", "field", string(w.Field), "warning", w.Message)
	}
}

// fileEvent tells of the files of a resource.
func (g *Gateway) fileEvent(ref store.Ref, e *adminv1.Event) {
	if e.Type == adminv1.EventType_EVENT_TYPE_FILE_REFUSED {
		g.log.Warn("files refused", "resource", ref.String(), "error", e.Message)
	} else {
		g.log.Info("files loaded", "resource", ref.String(), "revision", e.Revision)
	}
	e.Kind, e.Name, e.Count = ref.Kind, ref.Name, 1
	g.event(e)
}

// maxPathsTold bounds how many bytes of paths an event or a comment has.
const maxPathsTold = 800

func fileComment(changes []fileChange) string {
	var paths []string
	for _, c := range changes {
		for _, p := range snapshot.FilePaths(c.resource) {
			if !slices.Contains(paths, p) {
				paths = append(paths, p)
			}
		}
	}
	return "file changed: " + strings.Join(listed(paths, maxPathsTold), ", ")
}

// listed returns as many of paths as fit into most bytes, and how many it left
// out.
func listed(paths []string, most int) []string {
	size := 0
	for i, p := range paths {
		if size += len(p) + len(", "); size > most {
			return append(slices.Clone(paths[:i]), fmt.Sprintf("%d more", len(paths)-i))
		}
	}
	return paths
}
