package fleet

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd/etcdtest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func migrationKey(t *testing.T) *seal.Key {
	t.Helper()
	key, err := seal.ParseKey([]byte(strings.Repeat("a", 64)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func openRemote(t *testing.T, c *etcdtest.Cluster, prefix string) *etcd.Store {
	t.Helper()
	remote, err := etcd.Open(etcd.Options{Endpoints: c.Endpoints(), Prefix: prefix, Key: migrationKey(t), Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remote.Close() })
	return remote
}

func openLocal(t *testing.T, dir string) *bolt.Store {
	t.Helper()
	local, err := bolt.Open(dir, bolt.Options{Key: migrationKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	return local
}

// written returns a database with one edit for each name: "a" puts the upstream a, and "-a"
// deletes it.
func written(t *testing.T, dir string, within time.Duration, names ...string) *bolt.Store {
	t.Helper()
	local := openLocal(t, dir)
	state := local.State()
	for i, name := range names {
		e := store.Edit{Comment: name, ConfirmWithin: within}
		if old, ok := strings.CutPrefix(name, "-"); ok {
			e.Deletes = []store.Delete{{Kind: adminv1.Kind_KIND_UPSTREAM, Name: old}}
		} else {
			e.Puts = []store.Put{{Resource: &adminv1.Upstream{Name: name, Endpoints: []*adminv1.Endpoint{{Address: fmt.Sprint("127.0.0.1:", 1+i)}}}}}
		}
		d := state.Edit(e, new(invalid.List))
		if err := local.Commit(d, revisions.NewRecord(d, e, time.Now(), func(store.Ref) string { return "digest" })); err != nil {
			t.Fatal(err)
		}
		state = d.State()
	}
	if err := local.Close(); err != nil {
		t.Fatal(err)
	}
	return openLocal(t, dir)
}

// checkHistory checks that a database holds one revision for each comment, and the data to
// roll back to the first.
func checkHistory(t *testing.T, local *bolt.Store, comments ...string) {
	t.Helper()
	for i, comment := range comments {
		if r, err := local.Revision(int64(i + 1)); err != nil || r.GetComment() != comment {
			t.Errorf("revision %d: %v, %v", i+1, r, err)
		}
	}
	var priors []string
	complete, err := local.EachPrior(1, int64(len(comments)), func(p revisions.Prior) {
		priors = append(priors, fmt.Sprint(p.Ref.Name, " ", p.Resource != nil, " ", p.Files))
	})
	if err != nil || !complete || len(priors) != len(comments)-1 {
		t.Errorf("priors %q, complete %v, %v", priors, complete, err)
	}
}

func TestAConfigurationMovesToEtcdAndBack(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	dir := filepath.Join(t.TempDir(), "data")
	local, remote := written(t, dir, 0, "a", "b", "a", "-b", "c"), openRemote(t, c, "/fleet")
	before := local.State()
	for run := range 2 {
		moved, err := ToEtcd(t.Context(), local, remote)
		if err != nil || moved.Revision != 5 || moved.Resources != 2 || moved.Records != 5 || moved.Done != (run == 1) {
			t.Fatalf("run %d: %+v, %v", run, moved, err)
		}
	}
	checkHistory(t, local, "a", "b", "a", "-b", "c")
	if err := local.Close(); err != nil {
		t.Fatal(err)
	}
	// The gateway starts with its copy and follows the fleet. A new
	// gateway follows it too.
	members := map[string]*gateway{"the same gateway": {}, "a new gateway": {}}
	for name, g := range members {
		at := dir
		if name == "a new gateway" {
			at = filepath.Join(t.TempDir(), "data")
		}
		var err error
		g.Member, err = New(Options{ID: "test", Remote: openRemote(t, c, "/fleet"), Local: openLocal(t, at), Follow: g.follow, Logger: hclog.NewNullLogger()})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Sync(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := same(before, g.State()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		checkHistory(t, g.local, "a", "b", "a", "-b", "c")
	}
	if err := members["a new gateway"].put("d", 4); err != nil {
		t.Fatal(err)
	}
	after := members["a new gateway"].State()
	for _, g := range members {
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// Move back into the directory of a member, and into an empty one.
	for name, at := range map[string]string{"a copy": dir, "an empty directory": filepath.Join(t.TempDir(), "data")} {
		for run := range 2 {
			local := openLocal(t, at)
			moved, err := FromEtcd(t.Context(), local, remote)
			if err != nil || moved.Revision != 6 || moved.Resources != 3 || moved.Records != 6 || moved.Done != (run == 1) {
				t.Errorf("%s, run %d: %+v, %v", name, run, moved, err)
			}
			if err := local.Close(); err != nil {
				t.Fatal(err)
			}
		}
		local := openLocal(t, at)
		if err := same(after, local.State()); err != nil || local.Position() != nil {
			t.Errorf("%s: %v, position %s", name, err, local.Position())
		}
		checkHistory(t, local, "a", "b", "a", "-b", "c", "")
		if err := local.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnInterruptedMigrationCanBeRepeated(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	local, remote := written(t, filepath.Join(t.TempDir(), "data"), 0, "a", "b"), openRemote(t, c, "/fleet")
	defer local.Close()
	// The first run ended after the fleet was created.
	if _, err := remote.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The second run ended after the import, before the database became a copy.
	records, err := recordsOf(local)
	if err != nil {
		t.Fatal(err)
	}
	first, err := remote.Import(t.Context(), local.State(), records)
	if err != nil {
		t.Fatal(err)
	}
	if local.Position() != nil {
		t.Fatal("the database is a copy already")
	}
	if moved, err := ToEtcd(t.Context(), local, remote); err != nil || moved.Revision != 2 || moved.Records != 2 {
		t.Errorf("%+v, %v", moved, err)
	}
	if head, err := remote.Head(t.Context()); err != nil || head.Mod != first.Mod {
		t.Errorf("the head was changed again: %v, %v", head, err)
	}
	if !strings.Contains(string(local.Position()), first.Instance) {
		t.Errorf("the position is %s", local.Position())
	}
}

func TestAMigrationThatWouldLoseAConfigurationIsRefused(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	dir := func() string { return filepath.Join(t.TempDir(), "data") }
	local, other := written(t, dir(), 0, "a", "b"), written(t, dir(), 0, "x", "y")
	waiting, empty := written(t, dir(), time.Hour, "a"), openLocal(t, dir())
	for _, s := range []*bolt.Store{local, other, waiting, empty} {
		defer s.Close()
	}
	remote := openRemote(t, c, "/fleet")
	if _, err := ToEtcd(t.Context(), local, remote); err != nil {
		t.Fatal(err)
	}
	before := proto.Clone(other.State().Get(adminv1.Kind_KIND_UPSTREAM, "x").(*adminv1.Upstream))
	for name, move := range map[string]func() (Migration, error){
		"another configuration":               func() (Migration, error) { return ToEtcd(t.Context(), other, remote) },
		"waits to be confirmed":               func() (Migration, error) { return ToEtcd(t.Context(), waiting, openRemote(t, c, "/new")) },
		"holds no configuration":              func() (Migration, error) { return ToEtcd(t.Context(), empty, openRemote(t, c, "/new")) },
		"no fleet under the prefix":           func() (Migration, error) { return FromEtcd(t.Context(), empty, openRemote(t, c, "/new")) },
		"revision 2 of another configuration": func() (Migration, error) { return FromEtcd(t.Context(), other, remote) },
		"etcd holds no fleet":                 func() (Migration, error) { return ToEtcd(t.Context(), local, openRemote(t, c, "/new")) },
	} {
		if _, err := move(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !proto.Equal(before, other.State().Get(adminv1.Kind_KIND_UPSTREAM, "x").(*adminv1.Upstream)) || other.Position() != nil {
		t.Error("a refused migration changed the database")
	}
}
