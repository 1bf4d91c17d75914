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
	return g.applyWith(ctx, g.compiler, e)
}

func (g *Gateway) applyWith(ctx context.Context, c snapshot.Compiler, e store.Edit) (*store.Result, error) {
	result, err := g.apply(ctx, c, e)
	g.countApply(e, result, err)
	return result, err
}

func (g *Gateway) apply(ctx context.Context, compiler snapshot.Compiler, e store.Edit) (*store.Result, error) {
	if e.RequireProbe != adminv1.RequireProbe_REQUIRE_PROBE_UNSPECIFIED {
		return g.applyProbed(ctx, compiler, e)
	}
	if err := g.lock(ctx); err != nil {
		return nil, err
	}
	defer g.writer.Unlock()
	p, err := g.plan(compiler, e)
	if err != nil {
		return nil, err
	}
	return g.carryOut(p)
}

// lock takes the writer's lock. Without an error the caller must unlock it.
func (g *Gateway) lock(ctx context.Context) error {
	g.writer.Lock()
	var err error
	switch {
	case ctx.Err() != nil:
		// Whoever waited for the lock may have given up, and must not be surprised.
		err = invalid.Errorf(invalid.Unavailable, "", "the request ended while it waited for another write: %v", ctx.Err())
	case g.closing:
		err = invalid.Errorf(invalid.Unavailable, "", "the gateway is shutting down")
	default:
		return nil
	}
	g.writer.Unlock()
	return err
}

// A plan is an edit and what it would make live.
type plan struct {
	edit  store.Edit
	live  *snapshot.Snapshot // that it was made for
	next  *snapshot.Snapshot
	draft *store.Draft
	bad   *invalid.List // without faults so far
}

// plan drafts and compiles. It changes nothing, and needs no lock as long as the
// plan is carried out only while what it was made for is live.
func (g *Gateway) plan(compiler snapshot.Compiler, e store.Edit) (*plan, error) {
	p := &plan{edit: e, live: g.live.Load(), bad: new(invalid.List)}
	p.draft = p.live.State().Edit(e, p.bad)
	p.next = compiler.Compile(p.live, p.draft, p.bad)
	if err := p.bad.Err(); err != nil {
		return nil, err
	}
	p.draft.Touch(p.bad, p.next.Reloaded(p.live)...)
	if err := p.bad.Err(); err != nil {
		return nil, err
	}
	return p, nil
}

// carryOut makes a plan durable and live. The caller holds the writer's lock,
// and what the plan was made for is live.
func (g *Gateway) carryOut(p *plan) (*store.Result, error) {
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
	result := &store.Result{State: draft.State(), Changes: draft.Changes(), Warnings: bad.Warnings()}
	if e.DryRun {
		sockets.Discard()
		return result, nil
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
	g.files.filesChanged()
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
	next := g.compiler.Restore(state)
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
	state := g.live.Load().State()
	e := store.Edit{Comment: "files read again"}
	for _, r := range state.List(adminv1.Kind_KIND_TRUST_BUNDLE) {
		if b := r.(*adminv1.TrustBundle); b.GetSystem() != nil || len(snapshot.FilePaths(b)) > 0 {
			e.Puts = append(e.Puts, store.Put{Resource: r})
		}
	}
	for _, r := range state.List(adminv1.Kind_KIND_CERTIFICATE) {
		if len(snapshot.FilePaths(r)) > 0 {
			e.Puts = append(e.Puts, store.Put{Resource: r})
		}
	}
	compiler := g.compiler
	compiler.RereadSystem = true
	return g.applyWith(ctx, compiler, e)
}
