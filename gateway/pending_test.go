package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// ages is longer than any test.
const ages = time.Hour

// tryConfirm confirms a revision.
func (g *testGateway) tryConfirm(n int64) error {
	_, err := g.Confirm(context.Background(), n, store.Origin{Principal: "uid:9"})
	return err
}

func isPending(err error) bool {
	var bad *invalid.Error
	return errors.As(err, &bad) && bad.Worst() == invalid.Pending
}

func TestAnUnconfirmedRevisionIsUndoneAtItsDeadline(t *testing.T) {
	g := start(t, "")
	g.put(plainUpstream("u", "127.0.0.1:1"))
	r := g.apply(store.Edit{Puts: puts(plainUpstream("u", "127.0.0.1:2"), plainUpstream("v", "127.0.0.1:3")), ConfirmWithin: 50 * time.Millisecond})
	if r.Pending.GetRevision() != 2 || r.Pending.GetRollbackTo() != 1 {
		t.Errorf("pending: %v", r.Pending)
	}
	eventually(t, "the gateway rolls back", func() bool { return g.State().Revision() == 3 })
	if got := content(g.State()); !strings.Contains(got, "127.0.0.1:1") || strings.Contains(got, `"v"`) {
		t.Errorf("%s", got)
	}
	if p := g.Status().GetPending(); p != nil {
		t.Errorf("still pending: %v", p)
	}
	rev, err := g.History().Revision(3)
	if err != nil || rev.GetMethod() != "deadline" || rev.GetRollbackTo() != 1 || rev.GetPrincipal() != "gateway" || !strings.Contains(rev.GetComment(), "revision 2 was not confirmed") {
		t.Errorf("%v, %v", rev, err)
	}
	if err := g.tryConfirm(2); !isPending(err) || !strings.Contains(err.Error(), "was not confirmed by") {
		t.Errorf("confirmed too late: %v", err)
	}
	g.put(plainUpstream("w", "127.0.0.1:1")) // writes are possible again
}

// The deadline may pass when the revision is committed but not yet live.
func TestADeadlineBeforeTheRevisionIsLive(t *testing.T) {
	g := start(t, "")
	g.put(plainUpstream("u", "127.0.0.1:1"))
	replacing, back := g.replacing, make(chan error, 1)
	g.replacing = func(prev, next *snapshot.Snapshot) func() {
		g.replacing = replacing
		go func() { back <- g.goBack(context.Background(), 2) }()
		select { // a rollback that did not wait for the lock would draft its edit meanwhile
		case err := <-back:
			back <- err
		case <-time.After(50 * time.Millisecond):
		}
		return replacing(prev, next)
	}
	g.apply(store.Edit{Puts: puts(plainUpstream("u", "127.0.0.1:2")), ConfirmWithin: ages})
	if err := <-back; err != nil {
		t.Error(err)
	}
	if got := content(g.State()); g.State().Revision() != 3 || !strings.Contains(got, "127.0.0.1:1") || g.Status().GetPending() != nil {
		t.Errorf("revision %d: %s", g.State().Revision(), got)
	}
}

// A revision stays live if it is confirmed while the gateway plans its rollback.
func TestAConfirmationOvertakesTheRollback(t *testing.T) {
	g := start(t, "")
	g.put(plainUpstream("u", "127.0.0.1:1"))
	g.apply(store.Edit{Puts: puts(plainUpstream("u", "127.0.0.1:2")), ConfirmWithin: ages})
	e, err := g.RollbackEdit(1)
	if err != nil {
		t.Fatal(err)
	}
	e.Origin.Method = byDeadline
	p, err := g.plan(context.Background(), e, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.tryConfirm(2); err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.carryOutIfLive(context.Background(), p); err == nil || g.State().Revision() != 2 {
		t.Errorf("revision %d, %v", g.State().Revision(), err)
	}
	if err := g.goBack(context.Background(), 2); err != nil {
		t.Error(err)
	}
}

func TestAConfirmedRevisionStays(t *testing.T) {
	g := start(t, "")
	g.apply(store.Edit{Puts: puts(plainUpstream("u", "127.0.0.1:1")), ConfirmWithin: ages})
	if p := g.Status().GetPending(); p.GetRevision() != 1 || p.GetExpireTime().AsTime().Before(time.Now()) {
		t.Errorf("pending: %v", p)
	}
	if err := g.tryConfirm(2); err == nil || isPending(err) {
		t.Errorf("a revision that does not exist: %v", err)
	}
	for range 2 { // the second confirm is a retry after a lost answer
		if err := g.tryConfirm(1); err != nil {
			t.Fatal(err)
		}
	}
	if p := g.Status().GetPending(); p != nil {
		t.Errorf("still pending: %v", p)
	}
	g.stop()
	g = start(t, g.dir)
	if g.State().Revision() != 1 || g.State().Get(adminv1.Kind_KIND_UPSTREAM, "u") == nil {
		t.Errorf("after a restart: revision %d", g.State().Revision())
	}
	rev, err := g.History().Revision(1)
	if err != nil || rev.GetConfirmTime() == nil || rev.GetConfirmPrincipal() != "uid:9" || rev.GetExpireTime() == nil {
		t.Errorf("%v, %v", rev, err)
	}
	g.put(plainUpstream("u", "127.0.0.1:2"))
	if err := g.tryConfirm(2); !isPending(err) || !strings.Contains(err.Error(), "needs no confirmation") {
		t.Errorf("%v", err)
	}
}

func TestOtherWritesAreRefusedWhileARevisionIsPending(t *testing.T) {
	g := start(t, "")
	g.put(plainUpstream("u", "127.0.0.1:1"))
	first := store.Edit{Puts: puts(plainUpstream("u", "127.0.0.1:2")), ConfirmWithin: ages, Origin: store.Origin{Principal: "uid:7"}}
	g.apply(first)
	for name, e := range map[string]store.Edit{
		"a put":                             {Puts: puts(plainUpstream("v", "127.0.0.1:1"))},
		"a delete":                          {Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "u"}}},
		"another write with confirm_within": {Puts: puts(plainUpstream("v", "127.0.0.1:1")), ConfirmWithin: ages},
		"a put of the previous content":     {Puts: puts(plainUpstream("u", "127.0.0.1:1"))},
	} {
		_, err := g.Apply(context.Background(), e)
		if !isPending(err) || !strings.Contains(err.Error(), "revision 2, made by uid:7, is pending") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A retry of the write succeeds, and so does a write that changes nothing.
	if r := g.apply(first); r.Revision != 2 || r.Pending.GetRevision() != 2 {
		t.Errorf("%+v", r)
	}
	dry := g.apply(store.Edit{Puts: puts(plainUpstream("v", "127.0.0.1:1")), DryRun: true})
	if len(dry.Warnings) != 1 || dry.Warnings[0].Code != "PENDING" {
		t.Errorf("warnings of a dry run: %v", dry.Warnings)
	}
	elsewhere, err := g.RollbackEdit(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Apply(context.Background(), elsewhere); !isPending(err) {
		t.Errorf("a rollback to another revision: %v", err)
	}
	g.rollBack(1) // ends the pending revision before its deadline
	if p := g.Status().GetPending(); p != nil || g.State().Revision() != 3 {
		t.Errorf("pending %v at revision %d", p, g.State().Revision())
	}
	g.put(plainUpstream("v", "127.0.0.1:1"))
}

func TestAStartRollsBackAPendingRevision(t *testing.T) {
	g := start(t, "")
	g.put(plainUpstream("u", "127.0.0.1:1"))
	g.apply(store.Edit{Puts: puts(plainUpstream("u", "127.0.0.1:2")), ConfirmWithin: ages})
	for range 2 { // the second start has nothing to roll back
		g.stop()
		g = start(t, g.dir)
		if got := content(g.State()); g.State().Revision() != 3 || !strings.Contains(got, "127.0.0.1:1") || g.Status().GetPending() != nil {
			t.Fatalf("revision %d: %s", g.State().Revision(), got)
		}
	}
}

// A file that changes while a revision is pending is loaded once the revision
// is no longer pending.
func TestFilesThatChangeMeanwhileAreLoadedAfterTheConfirmation(t *testing.T) {
	dir := t.TempDir()
	bundle := writeFile(t, filepath.Join(dir, "ca.pem"), certstest.NewCA(t).TrustPEM())
	g := start(t, "")
	g.put(&adminv1.TrustBundle{Name: "ca", Source: &adminv1.TrustBundle_File{File: bundle}})
	g.apply(store.Edit{Puts: puts(plainUpstream("u", "127.0.0.1:1")), ConfirmWithin: ages})
	writeFile(t, bundle, certstest.NewCA(t).TrustPEM())
	eventually(t, "the change is noticed", func() bool { return strings.Contains(g.log.String(), "cannot apply changed files now") })
	if err := g.tryConfirm(2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file is loaded", func() bool { return g.State().Revision() == 3 })
}

// A reload is refused like any other change, unless no file has changed.
func TestAReloadIsRefusedWhileARevisionIsPending(t *testing.T) {
	bundle := writeFile(t, filepath.Join(t.TempDir(), "ca.pem"), certstest.NewCA(t).TrustPEM())
	g := start(t, "")
	g.put(&adminv1.TrustBundle{Name: "ca", Source: &adminv1.TrustBundle_File{File: bundle}})
	g.apply(store.Edit{Puts: puts(plainUpstream("u", "127.0.0.1:1")), ConfirmWithin: ages})
	if _, err := g.Reload(context.Background()); err != nil {
		t.Errorf("no file has changed: %v", err)
	}
	writeFile(t, bundle, certstest.NewCA(t).TrustPEM())
	if _, err := g.Reload(context.Background()); !isPending(err) || g.Status().GetPending().GetRevision() != 2 {
		t.Errorf("a file has changed: %v", err)
	}
	g.rollBack(1)
	eventually(t, "the file is loaded after the wait", func() bool { return g.State().Revision() == 4 })
}

// The previous revision is no longer valid: its file is gone, and its port is taken.
// The gateway still rolls back, and only the affected resources are down.
func TestAnInvalidPreviousRevisionIsRestoredAsFarAsPossible(t *testing.T) {
	dir := t.TempDir()
	bundle := writeFile(t, filepath.Join(dir, "ca.pem"), certstest.NewCA(t).TrustPEM())
	g := start(t, "")
	secured := plainUpstream("secured", "127.0.0.1:1")
	secured.Transport = &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{TrustBundles: []string{"ca"}}}
	g.put(&adminv1.TrustBundle{Name: "ca", Source: &adminv1.TrustBundle_File{File: bundle}}, secured, plainUpstream("u", "127.0.0.1:1"))
	g.apply(store.Edit{Puts: puts(plainUpstream("u", "127.0.0.1:2")), ConfirmWithin: ages,
		Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_TRUST_BUNDLE, Name: "ca"}, {Kind: adminv1.Kind_KIND_UPSTREAM, Name: "secured"}}})
	if err := os.Remove(bundle); err != nil {
		t.Fatal(err)
	}
	if err := g.goBack(t.Context(), 2); err != nil || g.State().Revision() != 3 || g.Status().GetPending() != nil {
		t.Errorf("revision %d: %v", g.State().Revision(), err)
	}
	if got := content(g.State()); !strings.Contains(got, "secured") || !strings.Contains(got, "127.0.0.1:1") {
		t.Errorf("%s", got)
	}
	var down []string
	for _, p := range g.Status().GetProblems() {
		down = append(down, p.GetName())
	}
	if fmt.Sprint(down) != "[ca secured]" {
		t.Errorf("down: %v", down)
	}
}

// failingAtDeadlines is a store that cannot roll back pending revisions.
type failingAtDeadlines struct{ stateStore }

func (s failingAtDeadlines) Commit(d *store.Draft, r *revisions.Record) error {
	if r.Revision.GetMethod() == byDeadline {
		return errors.New("no space left on device")
	}
	return s.stateStore.Commit(d, r)
}

// A disk that is full at the deadline delays the rollback until the disk has space.
func TestAFailedWriteAtTheDeadlineIsRetried(t *testing.T) {
	g := start(t, "")
	g.put(plainUpstream("u", "127.0.0.1:1"))
	g.mu.Lock()
	sound := g.store
	g.store = failingAtDeadlines{sound}
	g.mu.Unlock()
	g.apply(store.Edit{Puts: puts(plainUpstream("u", "127.0.0.1:2")), ConfirmWithin: 50 * time.Millisecond})
	eventually(t, "rolling back fails", func() bool { return strings.Contains(g.log.String(), "cannot roll back to the previous revision") })
	if _, err := g.Apply(context.Background(), store.Edit{Puts: puts(plainUpstream("v", "127.0.0.1:1"))}); !isPending(err) {
		t.Errorf("another write after the deadline: %v", err)
	}
	if err := g.tryConfirm(2); !isPending(err) {
		t.Errorf("a confirmation after the deadline: %v", err)
	}
	g.mu.Lock()
	g.store = sound
	g.mu.Unlock()
	eventually(t, "the gateway rolls back", func() bool { return g.State().Revision() == 3 })
}

// After each step of a random sequence of writes, confirmations, rollbacks, expiries and
// restarts, the gateway has the state that a simple model predicts. No acknowledged change
// is lost, and no pending change survives its deadline or a restart.
func TestRandomSequencesAgreeWithAModel(t *testing.T) {
	sequences := 4
	if testing.Short() {
		sequences = 1
	}
	for seed := range sequences {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runSequence(t, rand.New(rand.NewPCG(16, uint64(seed)))) })
	}
}

func runSequence(t *testing.T, random *rand.Rand) {
	g := start(t, "")
	states := map[int64]string{0: ""} // model states by revision
	var live, pending int64
	check := func(step int, what string) {
		t.Helper()
		if g.State().Revision() != live || content(g.State()) != states[live] || g.Status().GetPending().GetRevision() != pending {
			t.Fatalf("step %d, %s: revision %d, pending %d:\n%s\nwant revision %d, pending %d:\n%s", step, what,
				g.State().Revision(), g.Status().GetPending().GetRevision(), content(g.State()), live, pending, states[live])
		}
	}
	// back models the rollback of the pending revision. It always
	// creates a revision, because a pending revision changes the state.
	back := func() {
		states[live+1] = states[pending-1]
		live, pending = live+1, 0
	}
	for step := range 60 {
		switch n := random.IntN(12); {
		case n == 0:
			g.stop()
			g = start(t, g.dir)
			if pending != 0 {
				back()
			}
			check(step, "restart")
		case n == 1 && pending != 0:
			if err := g.tryConfirm(pending); err != nil {
				t.Fatal(err)
			}
			pending = 0
			check(step, "confirm")
		case n == 2 && pending != 0:
			g.rollBack(pending - 1)
			back()
			check(step, "rollback of the pending revision")
		case n < 5 && pending == 0:
			to := random.Int64N(live + 1)
			r := g.rollBack(to)
			if states[to] != states[live] {
				live++
				states[live] = states[to]
			}
			if r.Revision != live {
				t.Fatalf("step %d: rollback to %d made revision %d", step, to, r.Revision)
			}
			check(step, "rollback")
		default:
			e := store.Edit{Puts: puts(plainUpstream(fmt.Sprint("u", random.IntN(3)), fmt.Sprintf("127.0.0.1:%d", 1+random.IntN(4))))}
			expires := false
			switch random.IntN(5) {
			case 0:
				e.ConfirmWithin = ages
			case 1:
				e.ConfirmWithin, expires = time.Millisecond, true
			}
			r, err := g.Apply(context.Background(), e)
			if pending != 0 {
				if err == nil && r.Revision != live || err != nil && !isPending(err) {
					t.Fatalf("step %d: a write while revision %d is pending: %v, %v", step, pending, r, err)
				}
				check(step, "refused write")
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.Revision == live { // the write changed nothing
				check(step, "unchanged")
				continue
			}
			states[r.Revision] = content(r.State)
			live = r.Revision
			if e.ConfirmWithin > 0 {
				pending = live
			}
			if expires {
				back()
				eventually(t, "the gateway rolls back", func() bool { return g.State().Revision() == live && g.Status().GetPending() == nil })
			}
			check(step, "write")
		}
	}
}

// The status never shows an unconfirmed revision as confirmed, not even at the
// beginning or end of its pending state.
func TestNoStatusShowsAPendingRevisionAsConfirmed(t *testing.T) {
	g := start(t, "")
	g.put(bare("l", "127.0.0.1:0"))
	var unconfirmed sync.Map // unconfirmed revisions
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			s := g.Status()
			if _, ok := unconfirmed.Load(s.GetRevision()); ok && s.GetPending() == nil {
				t.Errorf("revision %d is shown as confirmed", s.GetRevision())
				return
			}
		}
	})
	for range 50 {
		next := g.State().Revision() + 1
		unconfirmed.Store(next, true)
		g.apply(store.Edit{Puts: puts(bare("other", "127.0.0.1:0")), ConfirmWithin: time.Hour})
		if err := g.goBack(t.Context(), next); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	reader.Wait()
}
