package fleet

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd/etcdtest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A gateway stands in for the part of a gateway that its member uses.
type gateway struct {
	*Member
	mu sync.Mutex // the writer's lock

	logged  logtest.Buffer
	address atomic.Value // a string: the address that it reports

	notifying sync.Mutex
	notified  map[Event][]string // the messages of events; guarded by notifying
}

func (g *gateway) notifyTest(e Event, _ int64, message string) {
	g.notifying.Lock()
	defer g.notifying.Unlock()
	g.notified[e] = append(g.notified[e], message)
}

// events returns the messages of the events of a type.
func (g *gateway) events(e Event) []string {
	g.notifying.Lock()
	defer g.notifying.Unlock()
	return slices.Clone(g.notified[e])
}

func (g *gateway) follow(_ context.Context, f *store.Followed) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.Fresh() {
		f.Keep()
	}
	return nil
}

func (g *gateway) describeTest() *adminv1.Gateway {
	address, _ := g.address.Load().(string)
	return &adminv1.Gateway{Address: address, Revision: g.State().Revision(), Labels: map[string]string{"name": g.id}}
}

// put commits an upstream.
func (g *gateway) put(name string, port int) error { return g.putPending(name, port, 0) }

// putPending commits an upstream, which waits to be confirmed within a time; 0: it does not.
func (g *gateway) putPending(name string, port int, within time.Duration) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := store.Edit{Puts: []store.Put{{Resource: &adminv1.Upstream{Name: name, Endpoints: []*adminv1.Endpoint{{Address: fmt.Sprint("127.0.0.1:", port)}}}}}}
	e.ConfirmWithin = within
	d := g.State().Edit(e, new(invalid.List))
	return g.Commit(d, revisions.NewRecord(d, e, time.Now(), func(store.Ref) string { return "" }))
}

func join(t *testing.T, c *etcdtest.Cluster) *gateway {
	t.Helper()
	g := joinAs(t, c, "test", filepath.Join(t.TempDir(), "data"), ages)
	t.Cleanup(func() { g.Close() })
	return g
}

// joinAs returns a gateway with an ID, a data directory, and the duration of its leases. The
// caller closes it.
func joinAs(t *testing.T, c *etcdtest.Cluster, id, dir string, alive time.Duration) *gateway {
	t.Helper()
	return joinThrough(t, c.Endpoints(), id, dir, alive)
}

// joinThrough is joinAs with the addresses of etcd.
func joinThrough(t *testing.T, endpoints []string, id, dir string, alive time.Duration) *gateway {
	t.Helper()
	key, err := seal.ParseKey([]byte(strings.Repeat("a", 64)))
	if err != nil {
		t.Fatal(err)
	}
	remote, err := etcd.Open(etcd.Options{Endpoints: endpoints, Key: key, Timeout: time.Minute, Alive: alive})
	if err != nil {
		t.Fatal(err)
	}
	local, err := bolt.Open(dir, bolt.Options{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return member(t, id, remote, local, nil)
}

// member returns a gateway that owns stores. If sharer is not nil, it has a clock and receives
// ticket secrets.
func member(t *testing.T, id string, remote *etcd.Store, local *bolt.Store, sharer *sharer) *gateway {
	t.Helper()
	g := &gateway{notified: map[Event][]string{}}
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: &g.logged})
	o := Options{ID: id, Describe: g.describeTest, Remote: remote, Local: local, Follow: g.follow, Notify: g.notifyTest, Logger: log, Poll: 200 * time.Millisecond}
	if sharer != nil {
		o.Tickets, o.Now = &sharer.secrets, sharer.now
	}
	var err error
	if g.Member, err = New(o); err != nil {
		t.Fatal(err)
	}
	return g
}

// A commit during a read of the head does not look as if etcd had gone back.
func TestReadsDuringCommitsAreNoDivergence(t *testing.T) {
	c := etcdtest.Start(t, 1)
	a, b := join(t, c), join(t, c)
	for _, g := range []*gateway{a, b} {
		if err := g.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	var readers, writers sync.WaitGroup
	for _, g := range []*gateway{a, b} {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := g.Sync(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i, g := range []*gateway{a, b} {
		writers.Go(func() {
			for n := range 150 {
				if err := g.put(fmt.Sprint("u", i), n); err != nil && !errors.Is(err, ErrBehind) {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	for _, g := range []*gateway{a, b} {
		if err := g.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := g.Status(); s.Diverged != "" || s.Head != g.State().Revision() || s.Copy != s.Head {
			t.Errorf("%+v, at revision %d", s, g.State().Revision())
		}
	}
	if a.State().Revision() != b.State().Revision() || a.State().Revision() == 0 {
		t.Errorf("revisions %d and %d", a.State().Revision(), b.State().Revision())
	}
}

// The copy is written again after a failure. What was read for it before a commit does not
// become part of the copy of the new revision, which would look damaged at the next start.
func TestACommitDuringARetryOfTheCopyWins(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	dir := filepath.Join(t.TempDir(), "data")
	g := joinAs(t, c, "test", dir, ages)
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.local.Lend(); err != nil { // writes fail
		t.Fatal(err)
	}
	if err := g.putPending("u", 1, ages); err != nil {
		t.Fatal(err)
	}
	if err := g.local.Reclaim(); err != nil {
		t.Fatal(err)
	}
	if s := g.Status(); s.Stale == "" || s.Copy != 0 {
		t.Fatalf("the copy was written: %+v", s)
	}
	head, from := g.head, etcd.Position{State: g.kept.state, ID: g.kept.position.ID}
	to, err := g.destination(t.Context(), head, from)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.put("u", 2); err != nil { // such as a rollback
		t.Fatal(err)
	}
	g.keepAt(head, to)
	g.retryCopy(t.Context())
	if s := g.Status(); s.Stale != "" || s.Copy != 2 {
		t.Errorf("the status: %+v", s)
	}
	for n := range int64(2) { // the copy has the whole history
		if r, err := revisions.NewHistory(g.local).Revision(n + 1); err != nil || r.GetRevision() != n+1 {
			t.Errorf("revision %d in the copy: %v, %v", n+1, r, err)
		}
	}
	g.Close()
	again := joinAs(t, c, "test", dir, ages)
	defer again.Close()
	if n, p := again.State().Revision(), again.local.Pending(); n != 2 || p != nil {
		t.Errorf("the copy has revision %d, pending %v", n, p)
	}
}

func TestAStaleCopyIsWrittenAgain(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	g := join(t, c)
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.local.Lend(); err != nil { // writes fail
		t.Fatal(err)
	}
	if err := g.putPending("u", 1, ages); err != nil {
		t.Fatal(err)
	}
	if err := g.local.Reclaim(); err != nil {
		t.Fatal(err)
	}
	g.retryCopy(t.Context())
	if s := g.Status(); s.Stale != "" || s.Copy != 1 || len(g.local.Position()) == 0 {
		t.Errorf("the status: %+v", s)
	}
}
