package gateway

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway/audit"
	"github.com/drawbridge-gateway/drawbridge/gateway/confirm"
	"github.com/drawbridge-gateway/drawbridge/gateway/fleet"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A stateStore stores the desired state. A committed draft survives a crash of the
// process; a failed Commit changes nothing.
type stateStore interface {
	State() *store.State
	Commit(*store.Draft, *revisions.Record) error

	// Pending returns the revision that was pending when the store was opened, or nil.
	// EndPending records that no revision is pending. If r is not nil, it replaces the
	// stored revision with the same number.
	Pending() *adminv1.Pending
	EndPending(r *adminv1.Revision) error

	// Lend closes the store for another process. Then either Reclaim opens the
	// store again, or Give leaves it to the other process.
	Lend() error
	Reclaim() error
	Give() error

	Close() error
}

// A writer makes edits durable and live. It owns the store and the live snapshot.
// Its methods may be called concurrently.
type writer struct {
	log       hclog.Logger
	compiler  snapshot.Compiler
	listeners *listeners.Set
	history   *revisions.History

	now func() time.Time // the time that is stored with revisions

	keeper  *confirm.Keeper         // rolls back the pending revision at its deadline
	pending atomic.Pointer[pending] // replaced only with the lock held; nil: no revision is pending

	// replacing is called with the lock held before next replaces prev. The function
	// that it returns is called afterward.
	replacing func(prev, next *snapshot.Snapshot) func()

	fleet *fleet.Member // nil without a fleet; otherwise it is also the store

	// filesChanged, readinessChanged and announce are called with the lock held after an
	// edit became live; filesChanged only if the set of used files changed. count is
	// called with the outcome of every edit.
	filesChanged     func()
	readinessChanged func()
	checkFiles       func() // checks all files soon
	announce         func(store.Update)
	follows          func(*store.Followed, *store.State) // called instead of announce, with the previous state
	count            func(outcome string)

	audit *audit.Log // nil: no audit log

	stopping context.Context // ends when the gateway stops; writes not committed by then fail
	stop     context.CancelFunc

	live atomic.Pointer[snapshot.Snapshot] // replaced only with the lock held

	// settled is the last live snapshot whose listeners were bound, as far as possible.
	settled atomic.Pointer[snapshot.Snapshot]

	mu      sync.Mutex // held while one edit is applied; traffic never takes it
	closing bool       // guarded by mu
	lent    bool       // another process has the store; guarded by mu
	store   stateStore // guarded by mu
}

// close rejects all further edits. An edit that is being committed ends first.
func (w *writer) close() {
	w.stop()
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
}

// State returns the desired state of the live revision.
func (w *writer) State() *store.State { return w.live.Load().State() }

// Present returns a copy of a resource to show to clients: without its private
// key, with the details of its certificates.
func (w *writer) Present(r store.Resource) store.Resource { return w.live.Load().Present(r) }

// Apply is the only path from an edit to live traffic. When it returns nil, the
// edit is durable and live. When it returns an error, which is an *invalid.Error,
// nothing has changed on disk or in traffic. It is safe for concurrent use and
// applies edits one at a time.
func (w *writer) Apply(ctx context.Context, e store.Edit) (*store.Result, error) {
	return w.applyRead(ctx, e, nil)
}

// applyRead is Apply with material that was already gathered for the edit. If
// m is nil, it gathers all of it.
func (w *writer) applyRead(ctx context.Context, e store.Edit, m *snapshot.Material) (*store.Result, error) {
	// When the gateway stops, a write that is not yet committed fails.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.stopping, cancel)()
	result, err := w.recordedApply(ctx, e, func() (*store.Result, error) { return w.applyAtHead(ctx, e, m) })
	w.countApply(e, result, err)
	return result, err
}

// maxPlans bounds how often an edit is planned and probed while other writes
// replace the snapshot that it was planned for.
const maxPlans = 3

// apply does everything slow without the writer's lock: reading files,
// decrypting keys, probing endpoints. It then takes the lock and carries out the
// plan, or plans again if another write went live in the meantime.
func (w *writer) apply(ctx context.Context, e store.Edit, m *snapshot.Material) (*store.Result, error) {
	probed := e.RequireProbe != adminv1.RequireProbe_REQUIRE_PROBE_UNSPECIFIED
	for range maxPlans {
		p, err := w.plan(ctx, e, m)
		if err != nil {
			return nil, err
		}
		if probed {
			if err := p.probeChanged(ctx); err != nil {
				return nil, err
			}
		}
		result, done, err := w.carryOutIfLive(ctx, p)
		if done || err != nil {
			return result, err
		}
		if !probed { // another write was faster: plan again under the lock
			return w.planLocked(ctx, e, p.material)
		}
		m = nil
	}
	return nil, invalid.Errorf(invalid.Conflict, "options.require_probe",
		"the configuration changed %d times while the upstreams were probed: try again", maxPlans)
}

// carryOutIfLive carries out a plan if the snapshot it was made for is still live.
func (w *writer) carryOutIfLive(ctx context.Context, p *plan) (result *store.Result, done bool, err error) {
	if err := w.lock(ctx); err != nil {
		return nil, false, err
	}
	defer w.mu.Unlock()
	if w.live.Load() != p.live {
		return nil, false, nil
	}
	result, err = w.carryOut(ctx, p)
	return result, true, err
}

// planLocked plans and carries out under the lock. If another write replaced the
// files or keys that were gathered, it releases the lock to gather the missing
// ones and tries again.
func (w *writer) planLocked(ctx context.Context, e store.Edit, m *snapshot.Material) (*store.Result, error) {
	for range maxGathers {
		result, missing, err := func() (*store.Result, snapshot.Needs, error) {
			if err := w.lock(ctx); err != nil {
				return nil, snapshot.Needs{}, err
			}
			defer w.mu.Unlock()
			p, missing, err := w.draft(e, m)
			if err != nil || !missing.None() {
				return nil, missing, err
			}
			result, err := w.carryOut(ctx, p)
			return result, missing, err
		}()
		if err != nil || missing.None() {
			return result, err
		}
		if m, err = w.gather(ctx, w.live.Load(), e, missing); err != nil {
			return nil, err
		}
	}
	return nil, errGathers()
}

// lock takes the writer's lock. If it returns nil, the caller must unlock it.
func (w *writer) lock(ctx context.Context) error {
	w.mu.Lock()
	var err error
	switch {
	case w.closing:
		err = errStopping()
	case w.lent:
		err = invalid.Errorf(invalid.Unavailable, "", "an upgrade of the gateway is in progress: try again when it has ended")
	case ctx.Err() != nil:
		// The client may have given up while its call waited for the lock. Then the
		// edit must not be applied.
		err = errEnded(ctx, "while it waited for another write")
	default:
		return nil
	}
	w.mu.Unlock()
	return err
}

func errStopping() error {
	return invalid.Errorf(invalid.Unavailable, "", "the gateway is shutting down")
}

func errEnded(ctx context.Context, moment string) error {
	return invalid.Errorf(invalid.Unavailable, "", "the request ended %s: %v; nothing was changed", moment, ctx.Err())
}

// A plan is an edit with the snapshot that it would make live.
type plan struct {
	edit     store.Edit
	material *snapshot.Material
	live     *snapshot.Snapshot // the snapshot that the plan was made for
	next     *snapshot.Snapshot
	draft    *store.Draft
	bad      *invalid.List // holds warnings; no faults so far
	reloaded []store.Ref   // resources whose files changed without making a revision
}

// plan gathers, drafts and compiles. It changes nothing and needs no lock,
// because a plan is carried out only while the snapshot it was made for is live.
func (w *writer) plan(ctx context.Context, e store.Edit, m *snapshot.Material) (*plan, error) {
	var missing snapshot.Needs
	for range maxGathers {
		var err error
		if m == nil {
			if m, err = w.gather(ctx, w.live.Load(), e, missing); err != nil {
				return nil, err
			}
		}
		var p *plan
		p, missing, err = w.draft(e, m)
		if err != nil || missing.None() {
			return p, err
		}
		m = nil
	}
	return nil, errGathers()
}

// maxGathers bounds how often an edit's files and keys are gathered while other
// writes replace those that were read.
const maxGathers = 10

func errGathers() error {
	return invalid.Errorf(invalid.Conflict, "", "the files or keys that the request needs changed %d times while they were read: try again", maxGathers)
}

// gather reads the files and keys that the edit needs, without the lock.
func (w *writer) gather(ctx context.Context, live *snapshot.Snapshot, e store.Edit, also snapshot.Needs) (*snapshot.Material, error) {
	m, err := w.compiler.Gather(ctx, live, e, also)
	switch {
	case err == nil:
		return m, nil
	case w.stopping.Err() != nil:
		return nil, errStopping()
	}
	return nil, errEnded(ctx, "while its files and keys were read")
}

// draft drafts and compiles. It reads no file and parses no key.
func (w *writer) draft(e store.Edit, m *snapshot.Material) (*plan, snapshot.Needs, error) {
	p := &plan{edit: e, material: m, live: w.live.Load(), bad: new(invalid.List)}
	var missing snapshot.Needs
	switch {
	case e.Follow != nil:
		missing = w.draftFollowed(p)
	case e.Force:
		p.draft = p.live.State().Edit(e, p.bad)
		p.next, missing = w.compiler.Force(p.live, p.draft, m)
	default:
		p.draft = p.live.State().Edit(e, p.bad)
		p.next, missing = w.compiler.Compile(p.live, p.draft, m, p.bad)
	}
	if !missing.None() {
		return nil, missing, nil
	}
	if err := p.bad.Err(); err != nil {
		return nil, missing, err
	}
	if reloaded := p.next.Reloaded(p.live); w.ownFilesOnly(e) {
		p.reloaded = reloaded
	} else {
		p.draft.Touch(p.bad, reloaded...)
	}
	if err := p.bad.Err(); err != nil {
		return nil, missing, err
	}
	p.warnOfFiles()
	return p, missing, nil
}

// warnOfFiles warns of files that have changed since the revision that a rollback
// restores: a rollback does not restore files.
func (p *plan) warnOfFiles() {
	if p.edit.Rollback == nil {
		return
	}
	for _, put := range p.edit.Puts {
		ref := store.RefOf(put.Resource)
		if was := p.edit.Rollback.Files[ref]; was != "" && was != p.next.FileDigest(ref).Key() {
			p.bad.Warn("FILE_CHANGED", put.Path, "the files of %v have changed since revision %d: their current content is used", ref, p.edit.Rollback.Revision)
		}
	}
}

// carryOut makes a plan durable and live. The caller holds the writer's lock, and
// the snapshot that the plan was made for is live.
func (w *writer) carryOut(ctx context.Context, p *plan) (*store.Result, error) {
	e, live, next, draft, bad := p.edit, p.live, p.next, p.draft, p.bad
	if e.Follow != nil && !e.Follow.Fresh() {
		return &store.Result{Base: live.State(), State: live.State(), Revision: live.State().Revision(), Present: live.Present}, nil
	}
	if w.admit(e, draft, bad); bad.Len() > 0 {
		return nil, bad.Err()
	}
	ref := func(name string) store.Ref { return store.Ref{Kind: adminv1.Kind_KIND_LISTENER, Name: name} }
	// A listener that was already down may stay down, even for another reason: its
	// certificate may be readable again while its port is taken.
	wasDown := func(name string) bool {
		l := live.Listener(name)
		return l != nil && l.Down != "" || w.listeners.DownReason(name) != ""
	}
	sockets := w.listeners.Prepare(next,
		func(name string) bool { return e.Force || wasDown(name) && !draft.Puts(ref(name)) },
		func(name, problem string) {
			bad.AddClass(invalid.InUse, draft.Path(ref(name)).Field("address"), "%s", problem)
		})
	if err := bad.Err(); err != nil {
		sockets.Discard()
		return nil, err
	}
	result := &store.Result{
		Base: live.State(), State: draft.State(), Revision: draft.State().Revision(), Changes: p.changes(), Warnings: bad.Warnings(), Present: next.Present,
	}
	if e.Impact {
		result.Impact = &adminv1.Impact{Listeners: w.listeners.Impact(sockets, next), Upstreams: live.Impact(next)}
	}
	if e.DryRun {
		result.Revision = live.State().Revision()
		sockets.Discard()
		return result, nil
	}
	if ctx.Err() != nil { // the last point at which nothing has changed
		sockets.Discard()
		return nil, errEnded(ctx, "before it was committed")
	}
	if e.Rollout != nil && draft.Changed() {
		sockets.Discard()
		return rollouts{w}.stage(ctx, p, result)
	}
	ended, err := w.commit(p)
	if err != nil {
		sockets.Discard()
		return nil, w.storeFault(err)
	}
	// Nothing below can fail.
	replaced := w.replacing(live, next)
	next.Require(live)
	w.live.Store(next)
	if ended {
		w.endPending()
	}
	result.Pending = w.Pending()
	replaced()
	w.listeners.Commit(sockets, next)
	w.settled.Store(next)
	w.fleet.Changed()
	live.Retire(next)
	next.Start(live)
	if next.FilesChanged(live) {
		w.filesChanged()
	}
	w.readinessChanged()
	switch {
	case e.Follow != nil:
		w.follows(e.Follow, live.State())
	case draft.Changed():
		w.announce(draft.Update(e.Comment))
	}
	return result, nil
}

// commit makes a plan durable. The caller holds the writer's lock. If ended is true, the
// caller must call endPending once the plan is live: a revision becomes pending before
// it is live, and stays pending until its rollback is live.
func (w *writer) commit(p *plan) (ended bool, err error) {
	before := w.pending.Load()
	if p.edit.Follow != nil {
		return w.commitFollowed(p), nil
	}
	if !p.draft.Changed() {
		if before == nil || !before.ends(p.edit) || p.edit.ExpectedRevision == nil || *p.edit.ExpectedRevision != before.GetRevision() {
			return false, nil
		}
		// The pending revision changed nothing but the content of files.
		return true, w.store.EndPending(nil)
	}
	record := revisions.NewRecord(p.draft, p.edit, w.now(), fileKeys(p.live))
	if err := w.store.Commit(p.draft, record); err != nil {
		return false, err
	}
	if record.Pending != nil {
		w.beginPending(record.Pending, p.edit.ConfirmWithin)
		return false, nil
	}
	return before != nil, nil
}

// restore makes the stored state live. A resource that cannot be made live is
// down, and the status shows its reason. It fails only if ctx ends: reading files and
// decrypting keys can take long.
func (w *writer) restore(ctx context.Context, state *store.State) error {
	next := w.compiler.Restore(ctx, state)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("the stored state was not restored: %w", err)
	}
	for _, p := range next.Problems() {
		w.log.Error("resource down", "resource", p.Ref.String(), "error", p.Reason)
	}
	sockets := w.listeners.Prepare(next, func(string) bool { return true }, nil)
	next.Require(new(snapshot.Snapshot))
	w.live.Store(next)
	w.listeners.Commit(sockets, next)
	w.settled.Store(next)
	w.fleet.Changed()
	next.Start(new(snapshot.Snapshot))
	w.log.Info("stored state live", "revision", state.Revision(), "resources", len(state.All()), "down", len(next.Problems())+sockets.Down())
	return nil
}

// Reload reads the files of all certificates and trust bundles again, and the
// system's roots, as one edit: like Apply, it either loads all files, or fails
// and changes nothing. It also retries every resource that is down.
func (w *writer) Reload(ctx context.Context) (*store.Result, error) {
	return w.Apply(ctx, Rereading(w.State(), store.Edit{Comment: "files read again", Origin: store.Origin{Method: "SIGHUP"}}))
}

// Rereading extends the edit so that it also reads the files of every resource,
// and the system's roots, again.
func Rereading(state *store.State, e store.Edit) store.Edit {
	e.RereadSystem = true
	for _, k := range []adminv1.Kind{adminv1.Kind_KIND_TRUST_BUNDLE, adminv1.Kind_KIND_CERTIFICATE} {
		for _, r := range state.List(k) {
			if b, ok := r.(*adminv1.TrustBundle); len(snapshot.FilePaths(r)) > 0 || ok && b.GetSystem() != nil {
				e.Reread = append(e.Reread, store.RefOf(r))
			}
		}
	}
	return e
}

// countApply counts an edit by its result, and logs the revision that it made live.
func (w *writer) countApply(e store.Edit, result *store.Result, err error) {
	outcome := "unchanged"
	switch {
	case err != nil:
		outcome = "refused"
	case e.DryRun:
		outcome = "dry_run"
	default:
		counts := map[adminv1.ChangeAction]int{}
		for _, c := range result.Changes {
			counts[c.Action]++
		}
		created, updated, deleted := counts[adminv1.ChangeAction_CHANGE_ACTION_CREATED], counts[adminv1.ChangeAction_CHANGE_ACTION_UPDATED], counts[adminv1.ChangeAction_CHANGE_ACTION_DELETED]
		if created+updated+deleted > 0 {
			outcome = "applied"
		}
		if created+updated+deleted > 0 && e.Rollout == nil {
			w.log.Info("revision live", "revision", result.State.Revision(), "created", created, "updated", updated, "deleted", deleted,
				"warnings", len(result.Warnings), "comment", e.Comment)
		}
	}
	w.count(outcome)
}
