package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd/etcdtest"
)

func prefixOption() clientv3.OpOption { return clientv3.WithPrefix() }

// A follower follows the head as a gateway does, and records each revision that it
// reaches.
type follower struct {
	store *Store
	reads atomic.Int64 // the number of reads of heads

	mu      sync.Mutex
	at      Position
	changed chan struct{} // closed at the next change
}

func follow(t *testing.T, s *Store) *follower {
	f := &follower{store: s, at: nothing(), changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			h, err := s.Head(ctx)
			if err != nil {
				rest(ctx)
				continue
			}
			f.reads.Add(1)
			if h.ID() != f.at.ID {
				r, err := s.Read(ctx, h, f.at)
				if err != nil {
					continue
				}
				f.mu.Lock()
				f.at = Position{r.State, h.ID()}
				close(f.changed)
				f.changed = make(chan struct{})
				f.mu.Unlock()
			}
			if s.Wait(ctx, h) != nil {
				rest(ctx)
			}
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return f
}

// rest waits before a reader tries again.
func rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(50 * time.Millisecond):
	}
}

// await waits until the follower is at a revision.
func (f *follower) await(t *testing.T, revision int64) {
	t.Helper()
	limit := time.After(3 * time.Minute)
	for {
		f.mu.Lock()
		at, changed := f.at.State.Revision(), f.changed
		f.mu.Unlock()
		if at == revision {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("the follower is at revision %d, not at %d", at, revision)
		}
	}
}

func compact(t *testing.T, client *clientv3.Client) {
	t.Helper()
	resp, err := client.Get(t.Context(), "x")
	if err == nil {
		_, err = client.Compact(t.Context(), resp.Header.GetRevision())
	}
	if err != nil && !strings.Contains(err.Error(), "compacted") {
		t.Fatal(err)
	}
}

// cilium #3011, etcd #8668: compaction while a gateway is away loses nothing, and the
// watch begins after the read.
func TestCompactionWhileAwayLosesNothing(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	s := open(t, c)
	h, state := commit(t, s, create(t, s), new(store.State), put(upstream("x", 1)))
	away := Position{State: state, ID: h.ID()}
	seen := h
	for i := range 10 {
		h, state = commit(t, s, h, state, put(upstream("x", 2+i)))
	}
	compact(t, c.Client())
	if err := s.Wait(t.Context(), seen); err == nil {
		t.Fatal("a watch from a compacted revision succeeded")
	}
	same(t, read(t, s, away).State, state)
	now, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Wait(t.Context(), now) }()
	commit(t, s, h, state, put(upstream("x", 100)))
	if err := <-ended; err != nil {
		t.Errorf("the watch after the read: %v", err)
	}
}

// apisix #12514: writes and compactions elsewhere do not cause repeated reads of an
// idle prefix, and the prefix loses nothing.
func TestAnIdlePrefixIsNotReadAgain(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	s := open(t, c)
	h, state := commit(t, s, create(t, s), new(store.State), put(upstream("x", 1)))
	f := follow(t, s)
	f.await(t, 1)
	client := c.Client()
	var before, n int64
	for range 5 { // on a busy machine, the follower's watch may begin after a compaction
		before = f.reads.Load()
		for range 20 {
			for range 50 {
				if _, err := client.Put(t.Context(), "/others/key", "value"); err != nil {
					t.Fatal(err)
				}
			}
			compact(t, client)
		}
		if n = f.reads.Load() - before; n <= 2 {
			break
		}
	}
	if n > 2 {
		t.Errorf("%d reads of an idle head", n)
	}
	// A client that reconnects resumes at a compacted revision.
	c.Kill(0)
	c.Run(0)
	c.Await()
	commit(t, s, h, state, put(upstream("x", 2)))
	f.await(t, 2)
	if n = f.reads.Load() - before; n > 20 {
		t.Errorf("%d reads after a restart of etcd", n)
	}
}

// apisix #13721: a connection that dies silently in the middle of a watch is noticed, and
// nothing is skipped.
func TestASilentConnectionIsNoticed(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	proxy := etcdtest.NewProxy(t, c.Endpoints()[0])
	s := open(t, c)
	behind := open(t, c, func(o *Options) { o.Endpoints, o.Timeout = []string{proxy.Address()}, time.Second })
	h, state := commit(t, s, create(t, s), new(store.State), put(upstream("x", 1)))
	f := follow(t, behind)
	f.await(t, 1)
	proxy.Silence()
	for i := range 5 {
		h, state = commit(t, s, h, state, put(upstream("x", 10+i)))
	}
	var failure error
	for range 3 { // the client may close the connection during a read
		_, err := behind.Head(t.Context())
		if failure = err; err == nil || strings.Contains(err.Error(), "no quorum answered within") {
			break
		}
	}
	if failure == nil || !strings.Contains(failure.Error(), "no quorum answered within") {
		t.Errorf("a read through a silent connection: %v", failure)
	}
	proxy.Heal() // new connections work; the client must give up the old one
	f.await(t, 6)
}

// apisix #13917: writes between the read and the watch are not missed.
func TestWritesWhileReadersStartAreNotMissed(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	s := open(t, c)
	h, state := create(t, s), new(store.State)
	const rounds = 200
	for i := range rounds {
		h, state = commit(t, s, h, state, put(upstream("x", i)))
		seen, err := s.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.Wait(t.Context(), seen) }()
		h, state = commit(t, s, h, state, put(upstream("x", rounds+i)))
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("round %d: the write was missed", i)
		}
	}
}

// apisix #11144: a wiped etcd is another fleet.
func TestAWipedEtcdIsAnotherFleet(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	s := open(t, c)
	h, state := commit(t, s, create(t, s), new(store.State), put(upstream("x", 1)))
	c.Wipe()
	c.Run(0)
	c.Await()
	if _, err := s.Head(t.Context()); !errors.Is(err, ErrEmpty) {
		t.Errorf("a wiped etcd: %v", err)
	}
	d := draft(t, state, put(upstream("x", 2)))
	if _, err := s.Commit(t.Context(), h, d, recordOf(d, store.Edit{})); !errors.Is(err, ErrConflict) {
		t.Errorf("a commit to a wiped etcd: %v", err)
	}
	fresh := create(t, s)
	if fresh.Instance == h.Instance || fresh.Cluster == h.Cluster {
		t.Error("the new fleet has the IDs of the old one")
	}
}

// apisix #3673: each member is killed in turn. Writes and watches continue, and nothing
// that was acknowledged is lost.
func TestEachMemberMayDie(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 3)
	s := open(t, c)
	f := follow(t, open(t, c))
	h, state := create(t, s), new(store.State)
	for dead := range 3 {
		c.Kill(dead)
		for i := range 5 {
			h, state = commitThrough(t, s, h, state, 10*dead+i)
		}
		f.await(t, state.Revision())
		c.Run(dead)
		c.Await()
	}
	same(t, read(t, s, nothing()).State, state)
	c.Kill(0)
	c.Kill(1)
	lost := open(t, c, func(o *Options) { o.Timeout = time.Second })
	d := draft(t, state, put(upstream("x", 1000)))
	if _, err := lost.Commit(t.Context(), h, d, recordOf(d, store.Edit{})); err == nil || errors.Is(err, ErrConflict) {
		t.Errorf("without a quorum: %v", err)
	}
	c.Run(0)
	c.Await()
	f.await(t, state.Revision())
	same(t, read(t, s, nothing()).State, state)
}

// commitThrough commits while members die: a commit that was not made is tried again.
func commitThrough(t *testing.T, s *Store, h *Head, state *store.State, port int) (*Head, *store.State) {
	t.Helper()
	var failures []string
	unknown := false // a commit may be in force although it failed
	for range 20 {
		d := draft(t, state, put(upstream("x", port)))
		next, err := s.Commit(t.Context(), h, d, recordOf(d, store.Edit{}))
		if err == nil {
			return next, d.State()
		}
		failures = append(failures, err.Error())
		if now, err := s.Head(t.Context()); err == nil {
			h = now // settle may have fenced the swap
		}
		unknown = unknown || errors.As(err, new(*UnknownError))
		if unknown && h.Revision() == d.State().Revision() {
			return h, d.State()
		}
		if h.Revision() != state.Revision() {
			t.Fatalf("a commit that failed is in force: %q", failures)
		}
	}
	t.Fatalf("%q", slices.Compact(failures))
	return nil, nil
}

// A commit whose response is lost is either in force or will never be.
func TestACommitWithoutAResponseIsSettled(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	proxy := etcdtest.NewProxy(t, c.Endpoints()[0])
	direct := open(t, c)
	h := create(t, direct)
	for i := range 3 {
		s := open(t, c, func(o *Options) { o.Endpoints, o.Timeout = []string{proxy.Address()}, 300*time.Millisecond })
		for connected := false; !connected; { // on a busy machine, a read may take longer than the timeout
			_, err := s.Head(t.Context())
			connected = err == nil
		}
		r := read(t, direct, nothing())
		d := draft(t, r.State, put(upstream("x", i)))
		if i == 1 { // the swap is lost, and the connection stays silent
			proxy.Silence()
		}
		_, err := s.swap(t.Context(), r.Head, r.Head.after(Blob{Revision: d.State().Revision(), ID: fmt.Sprint("id", i)}, 100, time.Now()), fmt.Sprint("id", i))
		proxy.Heal()
		now, headErr := direct.Head(t.Context())
		if headErr != nil {
			t.Fatal(headErr)
		}
		made := now.ID() == fmt.Sprint("id", i)
		switch {
		case err == nil && !made, err != nil && made && !errors.As(err, new(*UnknownError)):
			t.Errorf("round %d: %v, but in force: %v", i, err, made)
		case i == 1 && err == nil:
			t.Error("a swap through a silent connection succeeded")
		}
		// Begin again: these heads refer to records that do not exist.
		now.Records, now.Sum = nil, 0
		if h, err = direct.swap(t.Context(), now, now, ""); err != nil {
			t.Fatal(err)
		}
	}
	_ = h
}

// A commit whose response was lost returns the revision that it made, even if other
// commits have followed it.
func TestASettledCommitIsItsOwnRevision(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	s := open(t, c)
	base := create(t, s)
	d := draft(t, new(store.State), put(upstream("x", 1)))
	made, err := s.Commit(t.Context(), base, d, recordOf(d, store.Edit{}))
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, made, d.State(), put(upstream("x", 2)))
	next := *made
	settled, err := s.settle(t.Context(), base, &next, made.ID(), errors.New("lost"))
	if err != nil || settled.Revision() != 1 || settled.ID() != made.ID() {
		t.Fatalf("revision %d, %v", settled.Revision(), err)
	}
	later := draft(t, d.State(), put(upstream("x", 3)))
	if _, err := s.Commit(t.Context(), settled, later, recordOf(later, store.Edit{})); !errors.Is(err, ErrConflict) {
		t.Errorf("a commit after a head that has moved on: %v", err)
	}
}

// An amendment whose response was lost succeeded if it is the latest amendment of the head, even if
// commits have followed it. The amendment of another gateway does not count as its own.
func TestASettledAmendmentIsItsOwn(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	s := open(t, c)
	e := put(upstream("x", 1))
	e.ConfirmWithin = time.Hour
	base, state := commit(t, s, create(t, s), new(store.State), e)
	amended, err := s.Amend(t.Context(), base, nil)
	if err != nil {
		t.Fatal(err)
	}
	lost, other := *amended, *amended
	other.Amendment = "of another gateway"
	settle := func(next *Head) (*Head, error) { return s.settle(t.Context(), base, next, "", errors.New("lost")) }
	if h, err := settle(&lost); err != nil || h.Mod != amended.Mod {
		t.Errorf("the amendment is in force: %v, %v", h, err)
	}
	if h, err := settle(&other); !errors.Is(err, ErrConflict) {
		t.Errorf("another gateway's amendment is in force: %v, %v", h, err)
	}
	commit(t, s, amended, state, put(upstream("x", 2)))
	if h, err := settle(&lost); err != nil || h.Revision() != 1 {
		t.Errorf("the amendment and a commit after it are in force: %v, %v", h, err)
	}
	if h, err := settle(&other); !errors.Is(err, ErrConflict) {
		t.Errorf("another gateway's amendment and a commit after it are in force: %v, %v", h, err)
	}
}

// While etcd's quota is used up, it refuses writes, and their outcome is certain. Reads work.
func TestAWriteWithoutSpaceChangesNothing(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	s := open(t, c)
	e := put(upstream("x", 1))
	e.ConfirmWithin = time.Hour
	h, state := commit(t, s, create(t, s), new(store.State), e)
	c.UseUpQuota()
	d := draft(t, state, put(upstream("x", 2)))
	if _, err := s.Commit(t.Context(), h, d, recordOf(d, store.Edit{})); !errors.Is(err, ErrNoSpace) || errors.As(err, new(*UnknownError)) {
		t.Errorf("a commit: %v", err)
	}
	if _, err := s.Amend(t.Context(), h, nil); !errors.Is(err, ErrNoSpace) || errors.As(err, new(*UnknownError)) {
		t.Errorf("an amendment: %v", err)
	}
	if r := read(t, s, nothing()); r.Head.Mod != h.Mod {
		t.Error("a refused write changed the head")
	}
	c.RestoreQuota()
	if h, err := s.Amend(t.Context(), h, nil); err != nil || len(h.Waiting) > 0 {
		t.Errorf("an amendment after the alarm: %v, %v", h, err)
	}
}

// A gateway that stops while it becomes the conductor leaves no key behind, which would
// keep all others from conducting until its lease ends.
func TestAnInterruptedLeadLeavesNoKey(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	s := open(t, c)
	create(t, s)
	led := 0
	for i := range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*50*time.Microsecond)
		lead, err := s.Lead(ctx, "a")
		if err == nil && lead != nil {
			led++
			lead.Leave()
		}
		cancel()
		if lead, err = s.Lead(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		if lead == nil {
			t.Fatalf("after %d attempts of a, of which %d succeeded, b cannot lead", i+1, led)
		}
		lead.Leave()
	}
}
