package gateway

import (
	"context"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Apply is the one road from an edit to live traffic. When it returns nil, the
// edit is durable and live; when it returns an error, an *invalid.Error, nothing
// has changed, on disk or in traffic. It is safe for concurrent use; edits are
// applied one after the other.
func (g *Gateway) Apply(ctx context.Context, e store.Edit) (*store.Result, error) {
	return g.applyRead(ctx, e, nil)
}

// applyRead is Apply of an edit of which some material was gathered already, or
// nil.
func (g *Gateway) applyRead(ctx context.Context, e store.Edit, m *snapshot.Material) (*store.Result, error) {
	// A write that has not been committed when the gateway stops never is.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.stopping, cancel)()
	result, err := g.apply(ctx, e, m)
	g.countApply(e, result, err)
	return result, err
}

// maxPlans is how often an edit is planned and probed while others change what
// it was planned for.
const maxPlans = 3

// apply plans without the writer's lock whatever takes time: reading files,
// decrypting keys, probing endpoints. What it then carries out under the lock is
// what it has planned, or what it plans again because something else was live by
// then.
func (g *Gateway) apply(ctx context.Context, e store.Edit, m *snapshot.Material) (*store.Result, error) {
	probed := e.RequireProbe != adminv1.RequireProbe_REQUIRE_PROBE_UNSPECIFIED
	for range maxPlans {
		p, err := g.plan(ctx, e, m)
		if err != nil {
			return nil, err
		}
		if probed {
			if err := p.prove(ctx); err != nil {
				return nil, err
			}
		}
		result, done, err := g.carryOutIfLive(ctx, p)
		if done || err != nil {
			return result, err
		}
		if !probed { // others are faster: the lock keeps them out
			return g.planLocked(ctx, e, p.material)
		}
		m = nil
	}
	return nil, invalid.Errorf(invalid.Conflict, "options.require_probe",
		"the configuration was changed %d times while the upstreams were probed: try again", maxPlans)
}

// carryOutIfLive carries a plan out unless what it was made for is live no more.
func (g *Gateway) carryOutIfLive(ctx context.Context, p *plan) (result *store.Result, done bool, err error) {
	if err := g.lock(ctx); err != nil {
		return nil, false, err
	}
	defer g.writer.Unlock()
	if g.live.Load() != p.live {
		return nil, false, nil
	}
	result, err = g.carryOut(ctx, p)
	return result, true, err
}

// planLocked plans and carries out under the lock. What turns out to be missing
// is gathered without it: that another write has put other files or keys in the
// place of those that were read.
func (g *Gateway) planLocked(ctx context.Context, e store.Edit, m *snapshot.Material) (*store.Result, error) {
	for range maxGathers {
		result, missing, err := func() (*store.Result, snapshot.Needs, error) {
			if err := g.lock(ctx); err != nil {
				return nil, snapshot.Needs{}, err
			}
			defer g.writer.Unlock()
			p, missing, err := g.draft(e, m)
			if err != nil || !missing.None() {
				return nil, missing, err
			}
			result, err := g.carryOut(ctx, p)
			return result, missing, err
		}()
		if err != nil || missing.None() {
			return result, err
		}
		if m, err = g.gather(ctx, g.live.Load(), e, missing); err != nil {
			return nil, err
		}
	}
	return nil, errGathers()
}

// lock takes the writer's lock. Without an error the caller must unlock it.
func (g *Gateway) lock(ctx context.Context) error {
	g.writer.Lock()
	var err error
	switch {
	case g.closing:
		err = errStopping()
	case ctx.Err() != nil:
		// Whoever waited for the lock may have given up, and must not be surprised.
		err = errEnded(ctx, "while it waited for another write")
	default:
		return nil
	}
	g.writer.Unlock()
	return err
}

func errStopping() error {
	return invalid.Errorf(invalid.Unavailable, "", "the gateway is shutting down")
}

func errEnded(ctx context.Context, when string) error {
	return invalid.Errorf(invalid.Unavailable, "", "the request ended %s: %v; nothing was changed", when, ctx.Err())
}

// A plan is an edit and what it would make live.
type plan struct {
	edit     store.Edit
	material *snapshot.Material
	live     *snapshot.Snapshot // that it was made for
	next     *snapshot.Snapshot
	draft    *store.Draft
	bad      *invalid.List // without faults so far
}

// plan gathers, drafts and compiles. It changes nothing, and needs no lock as
// long as the plan is carried out only while what it was made for is live.
func (g *Gateway) plan(ctx context.Context, e store.Edit, m *snapshot.Material) (*plan, error) {
	var missing snapshot.Needs
	for range maxGathers {
		var err error
		if m == nil {
			if m, err = g.gather(ctx, g.live.Load(), e, missing); err != nil {
				return nil, err
			}
		}
		var p *plan
		p, missing, err = g.draft(e, m)
		if err != nil || missing.None() {
			return p, err
		}
		m = nil
	}
	return nil, errGathers()
}

// maxGathers is how often an edit is gathered while others put something else in
// the place of what was read.
const maxGathers = 10

func errGathers() error {
	return invalid.Errorf(invalid.Conflict, "", "the files or keys that the request needs changed %d times while they were read: try again", maxGathers)
}

// gather reads what the edit needs, without the lock.
func (g *Gateway) gather(ctx context.Context, live *snapshot.Snapshot, e store.Edit, also snapshot.Needs) (*snapshot.Material, error) {
	m, err := g.compiler.Gather(ctx, live, e, also)
	switch {
	case err == nil:
		return m, nil
	case g.stopping.Err() != nil:
		return nil, errStopping()
	}
	return nil, errEnded(ctx, "while its files and keys were read")
}

// draft drafts and compiles. It reads no file and parses no key.
func (g *Gateway) draft(e store.Edit, m *snapshot.Material) (*plan, snapshot.Needs, error) {
	p := &plan{edit: e, material: m, live: g.live.Load(), bad: new(invalid.List)}
	p.draft = p.live.State().Edit(e, p.bad)
	var missing snapshot.Needs
	p.next, missing = g.compiler.Compile(p.live, p.draft, m, p.bad)
	if !missing.None() {
		return nil, missing, nil
	}
	if err := p.bad.Err(); err != nil {
		return nil, missing, err
	}
	p.draft.Touch(p.bad, p.next.Reloaded(p.live)...)
	if err := p.bad.Err(); err != nil {
		return nil, missing, err
	}
	return p, missing, nil
}

// carryOut makes a plan durable and live. The caller holds the writer's lock,
// and what the plan was made for is live.
func (g *Gateway) carryOut(ctx context.Context, p *plan) (*store.Result, error) {
	e, live, next, draft, bad := p.edit, p.live, p.next, p.draft, p.bad
	ref := func(name string) store.Ref { return store.Ref{Kind: adminv1.Kind_KIND_LISTENER, Name: name} }
	// What takes no traffic anyhow may go on not to, for another reason even: a
	// listener whose certificate is back may find its port taken.
	wasDown := func(name string) bool {
		l := live.Listener(name)
		return l != nil && l.Down != "" || g.listeners.DownReason(name) != ""
	}
	sockets := g.listeners.Prepare(next,
		func(name string) bool { return wasDown(name) && !draft.Puts(ref(name)) },
		func(name, problem string) {
			bad.AddClass(invalid.InUse, draft.Path(ref(name)).Field("address"), "%s", problem)
		})
	if err := bad.Err(); err != nil {
		sockets.Discard()
		return nil, err
	}
	result := &store.Result{
		State: draft.State(), Revision: draft.State().Revision(), Changes: draft.Changes(), Warnings: bad.Warnings(), Present: next.Present,
	}
	if e.DryRun {
		result.Revision = live.State().Revision()
		sockets.Discard()
		return result, nil
	}
	if ctx.Err() != nil { // the last moment at which nothing has changed
		sockets.Discard()
		return nil, errEnded(ctx, "before it was committed")
	}
	if draft.Changed() {
		if err := g.store.Commit(draft); err != nil {
			sockets.Discard()
			g.log.Error("the store cannot write", "error", err)
			return nil, invalid.Errorf(invalid.Unavailable, "", "the store cannot write: %v; nothing was changed", err)
		}
	}
	// Nothing below can fail.
	g.live.Store(next)
	g.listeners.Commit(sockets, next)
	live.Retire(next)
	next.Start()
	g.files.Changed()
	if draft.Changed() {
		update := draft.Update(e.Comment)
		g.updates.Append(func(int64) (store.Update, int) { return update, update.Size() })
		g.applied(update)
	}
	return result, nil
}

// restore makes the stored state live. What cannot be is down, with its reason
// in the status.
func (g *Gateway) restore(state *store.State) {
	next := g.compiler.Restore(g.stopping, state)
	for _, p := range next.Problems() {
		g.log.Error("cannot be made live", "resource", p.Ref.String(), "error", p.Reason)
	}
	sockets := g.listeners.Prepare(next, func(string) bool { return true }, nil)
	g.live.Store(next)
	g.listeners.Commit(sockets, next)
	next.Start()
	g.log.Info("stored state live", "revision", state.Revision(), "resources", len(state.All()), "down", len(next.Problems())+sockets.Down())
}

// Reload reads every file that certificates and trust bundles come from again,
// and the system's roots, as one edit: all of them or, with an error as Apply's,
// none. It also tries again whatever is down.
func (g *Gateway) Reload(ctx context.Context) (*store.Result, error) {
	return g.Apply(ctx, Rereading(g.State(), store.Edit{Comment: "files read again"}))
}

// Rereading returns the edit with the files of every resource, and the system's
// roots, read again as a part of it.
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
