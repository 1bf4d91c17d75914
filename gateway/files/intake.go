package files

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Gateway is the gateway whose files are reloaded.
type Gateway interface {
	// Live returns the live snapshot.
	Live() *snapshot.Snapshot

	// Gather reads the files that an edit needs. It fails if ctx ends first.
	Gather(ctx context.Context, e store.Edit) (*snapshot.Material, error)

	// ApplyRead applies an edit with the material that was gathered for it.
	ApplyRead(ctx context.Context, e store.Edit, m *snapshot.Material) (*store.Result, error)

	// FileEvent sends an event about the files of a resource to all watchers. It takes
	// ownership of the event.
	FileEvent(ref store.Ref, e *adminv1.Event)
}

// An intake applies changed files as one edit. It keeps the live resource if its new
// files are invalid, and reports that once per content. It belongs to one goroutine.
type intake struct {
	gateway Gateway
	log     hclog.Logger
	refused map[store.Ref]snapshot.Digest // the content that was last reported as invalid
	read    map[store.Ref]snapshot.Digest // the content that was last read
}

func newIntake(g Gateway, log hclog.Logger) *intake {
	return &intake{gateway: g, log: log, refused: map[store.Ref]snapshot.Digest{}, read: map[store.Ref]snapshot.Digest{}}
}

// behind returns the resources whose live content differs from the last read of their
// files: the files are invalid or could not be applied, or a slow write has restored
// their earlier content. all lists every resource with files; behind forgets all others.
func (t *intake) behind(all []store.Ref) []store.Ref {
	var out []store.Ref
	snap, known := t.gateway.Live(), 0
	for _, ref := range all {
		digest, ok := t.read[ref]
		if ok {
			known++
		}
		if !ok || digest != snap.FileDigest(ref) {
			out = append(out, ref)
		}
	}
	if known < len(t.read) {
		present := make(map[store.Ref]bool, len(all))
		for _, ref := range all {
			present[ref] = true
		}
		maps.DeleteFunc(t.read, func(ref store.Ref, _ snapshot.Digest) bool { return !present[ref] })
	}
	return out
}

// take reads the files of resources and applies those that differ from the live ones.
func (t *intake) take(ctx context.Context, refs []store.Ref) {
	snap := t.gateway.Live()
	for _, ref := range refs {
		delete(t.read, ref)
	}
	m, err := t.gateway.Gather(ctx, store.Edit{Reread: refs})
	if err != nil {
		if ctx.Err() == nil {
			t.log.Warn("cannot read changed files now", "error", err)
		}
		return
	}
	var changed []change
	for _, ref := range refs {
		r := snap.State().Get(ref.Kind, ref.Name)
		digest := m.FileDigest(ref)
		t.read[ref] = digest
		if r == nil || digest == snap.FileDigest(ref) {
			delete(t.refused, ref)
			continue
		}
		changed = append(changed, change{ref, r, digest})
	}
	t.apply(ctx, changed, m)
}

// A change is a resource whose files differ from the live ones.
type change struct {
	ref      store.Ref
	resource store.Resource
	digest   snapshot.Digest // digest of the new files
}

func (c change) path() invalid.Path {
	return invalid.Path(store.KindName(c.ref.Kind)).Key(c.ref.Name)
}

// apply applies all valid changes. If the gateway itself fails, or a revision is pending,
// the next check tries again.
func (t *intake) apply(ctx context.Context, changes []change, m *snapshot.Material) {
	if len(changes) == 0 || ctx.Err() != nil {
		return
	}
	edit := store.Edit{Comment: commentOn(changes), Origin: store.Origin{Method: "file"}}
	for _, c := range changes {
		edit.Reread = append(edit.Reread, c.ref)
	}
	result, err := t.gateway.ApplyRead(ctx, edit, m)
	var faults *invalid.Error
	switch {
	case err == nil:
		t.loaded(result)
		return
	case !errors.As(err, &faults) || faults.Worst() == invalid.Unavailable || faults.Worst() == invalid.Pending:
		if ctx.Err() == nil {
			t.log.Warn("cannot apply changed files now", "error", err)
		}
		return
	}
	var fine []change
	for _, c := range changes {
		if own := faultsOf(c, faults); len(own) > 0 {
			t.refuse(c, own)
		} else {
			fine = append(fine, c)
		}
	}
	switch {
	case len(fine) < len(changes):
		t.apply(ctx, fine, m)
	case len(fine) == 1: // another resource that uses the change rejects it
		t.refuse(fine[0], faults.Faults)
	default:
		for i := range fine {
			t.apply(ctx, fine[i:i+1], m)
		}
	}
}

// faultsOf returns the faults of one resource, with paths relative to it.
func faultsOf(c change, all *invalid.Error) []invalid.Fault {
	var own []invalid.Fault
	for _, f := range all.Faults {
		if rest, ok := strings.CutPrefix(string(f.Field), string(c.path())+"."); ok {
			f.Field = invalid.Path(rest)
			own = append(own, f)
		}
	}
	return own
}

// refuse reports why files are rejected, unless the same content was reported before.
func (t *intake) refuse(c change, faults []invalid.Fault) {
	var problems []string
	for _, f := range faults {
		problems = append(problems, f.String())
	}
	if t.refused[c.ref] == c.digest {
		return
	}
	t.refused[c.ref] = c.digest
	t.gateway.FileEvent(c.ref, &adminv1.Event{
		Type: adminv1.EventType_EVENT_TYPE_FILE_REFUSED, Reason: adminv1.Reason_REASON_LOCAL_CONFIG, Message: strings.Join(problems, "; "),
	})
}

// loaded reports the files that were applied.
func (t *intake) loaded(result *store.Result) {
	for _, c := range result.Changes {
		ref := store.Ref{Kind: c.Kind, Name: c.Name}
		delete(t.refused, ref)
		if c.Action == adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED {
			continue
		}
		t.gateway.FileEvent(ref, &adminv1.Event{
			Type: adminv1.EventType_EVENT_TYPE_FILE_LOADED, Revision: result.State.Revision(),
			Message: "loaded from " + strings.Join(listed(snapshot.FilePaths(result.State.Get(c.Kind, c.Name)), maxPathBytes), ", "),
		})
	}
	for _, w := range result.Warnings {
		t.log.Warn("file", "field", string(w.Field), "warning", w.Message)
	}
}

// maxPathBytes bounds the paths in an event or a comment, in bytes.
const maxPathBytes = 800

func commentOn(changes []change) string {
	var paths []string
	for _, c := range changes {
		for _, p := range snapshot.FilePaths(c.resource) {
			if !slices.Contains(paths, p) {
				paths = append(paths, p)
			}
		}
	}
	return "file changed: " + strings.Join(listed(paths, maxPathBytes), ", ")
}

// listed returns the paths that fit into most bytes, and the number of the
// others.
func listed(paths []string, most int) []string {
	size := 0
	for i, p := range paths {
		if size += len(p) + len(", "); size > most {
			return append(slices.Clone(paths[:i]), fmt.Sprintf("%d more", len(paths)-i))
		}
	}
	return paths
}
