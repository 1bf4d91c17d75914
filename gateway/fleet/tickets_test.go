package fleet

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/drawbridge-gateway/drawbridge/certs/tickets"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd/etcdtest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
)

// A sharer is the part of a gateway that uses ticket secrets, with a clock of its own.
type sharer struct {
	secrets tickets.Shared
	skew    atomic.Int64 // added to the time
}

func (s *sharer) now() time.Time { return time.Now().Add(time.Duration(s.skew.Load())) }

// joinSharing returns a member that shares ticket secrets. The caller closes it.
func joinSharing(t *testing.T, c *etcdtest.Cluster, dir, digit string, s *sharer) *gateway {
	t.Helper()
	key, err := seal.ParseKey([]byte(strings.Repeat(digit, 64)))
	if err != nil {
		t.Fatal(err)
	}
	remote, err := etcd.Open(etcd.Options{Endpoints: c.Endpoints(), Key: key, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	local, err := bolt.Open(dir, bolt.Options{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return member(t, "test", remote, local, s)
}

// sharing returns members with data directories of their own, and their clocks.
func sharing(t *testing.T, c *etcdtest.Cluster, n int) ([]*gateway, []*sharer) {
	t.Helper()
	var members []*gateway
	var clocks []*sharer
	for range n {
		s := new(sharer)
		g := joinSharing(t, c, filepath.Join(t.TempDir(), "data"), "a", s)
		t.Cleanup(func() { g.Close() })
		members, clocks = append(members, g), append(clocks, s)
	}
	return members, clocks
}

// secrets returns the secrets of a member after it has read the head.
func (g *gateway) secrets(t *testing.T) tickets.List {
	t.Helper()
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := g.Status(); s.TicketsError != "" {
		t.Fatalf("ticket secrets: %s", s.TicketsError)
	}
	g.syncing.Lock()
	defer g.syncing.Unlock()
	kept, err := tickets.ParseList(g.local.Tickets())
	if err != nil || !slices.Equal(kept, g.tickets.list) {
		t.Errorf("the copy differs from the secrets in use: %v", err)
	}
	return g.tickets.list
}

func syncAll(t *testing.T, members []*gateway) {
	t.Helper()
	var all sync.WaitGroup
	for _, g := range members {
		all.Go(func() {
			if err := g.Sync(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestMembersThatRaceAgreeOnTheTicketSecrets(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	members, clocks := sharing(t, c, 5)
	agreed := func(when string, want int) tickets.List {
		t.Helper()
		syncAll(t, members)
		first := members[0].secrets(t)
		for i, g := range members {
			if got := g.secrets(t); !slices.Equal(got, first) {
				t.Errorf("%s: members 0 and %d have different secrets", when, i)
			}
		}
		if len(first) != want {
			t.Fatalf("%s: %d secrets, want %d", when, len(first), want)
		}
		return first
	}
	before := agreed("at the start", 1)
	for day := 1; day <= 9; day++ {
		for i, s := range clocks { // clocks differ by up to 5 minutes
			s.skew.Store(int64(time.Duration(day)*25*time.Hour + time.Duration(i-2)*150*time.Second))
		}
		after := agreed(fmt.Sprint("day ", day), min(day+1, 7))
		if after[1] != before[0] {
			t.Errorf("day %d: the previous secret is missing", day)
		}
		if again := agreed("again", len(after)); !slices.Equal(again, after) {
			t.Errorf("day %d: a second rotation followed", day)
		}
		if s := members[0].Status(); !s.TicketsMade.Equal(after.Newest()) {
			t.Errorf("day %d: the status says %v", day, s.TicketsMade)
		}
		before = after
	}
}

func TestTicketSecretsComeFromTheCopyWithoutEtcd(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	dir := filepath.Join(t.TempDir(), "data")
	g := joinSharing(t, c, dir, "a", new(sharer))
	want := g.secrets(t)
	made := g.Status().TicketsMade
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	c.Kill(0)
	again := joinSharing(t, c, dir, "a", new(sharer))
	if s := again.Status(); !s.TicketsMade.Equal(made) || made.IsZero() {
		t.Errorf("without etcd: the newest secret is of %v, want %v", s.TicketsMade, made)
	}
	fresh := joinSharing(t, c, filepath.Join(t.TempDir(), "data"), "a", new(sharer))
	if s := fresh.Status(); !s.TicketsMade.IsZero() {
		t.Errorf("a new member without etcd has a secret of %v", s.TicketsMade)
	}
	c.Run(0)
	c.Await()
	for _, g := range []*gateway{again, fresh} {
		if got := g.secrets(t); !slices.Equal(got, want) {
			t.Error("a member has other secrets than before")
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAMemberWithAnotherSealKeyGetsNoTicketSecrets(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	members, _ := sharing(t, c, 1)
	want := members[0].secrets(t)
	stranger := joinSharing(t, c, filepath.Join(t.TempDir(), "data"), "b", new(sharer))
	defer stranger.Close()
	if err := stranger.Sync(t.Context()); !errors.Is(err, etcd.ErrWrongKey) {
		t.Errorf("%v", err)
	}
	if s := stranger.Status(); !s.TicketsMade.IsZero() || !strings.Contains(s.Unreachable, "--seal-key-file") {
		t.Errorf("%+v", s)
	}
	if got := members[0].secrets(t); !slices.Equal(got, want) {
		t.Error("the stranger changed the secrets")
	}
}

// Members keep the secrets that they have while those in etcd are damaged. Once the key is
// deleted, they agree on new ones.
func TestDamagedTicketSecretsAreNotUsedAndNotReplaced(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	members, _ := sharing(t, c, 2)
	before := members[0].secrets(t)
	client := c.Client()
	const key = "/drawbridge/" + "tickets"
	if _, err := client.Put(t.Context(), key, "damaged"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := members[0].Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := members[0].Status()
		if !strings.Contains(s.TicketsError, key) || !s.TicketsMade.Equal(before.Newest()) {
			t.Errorf("%+v", s)
		}
		if got, err := client.Get(t.Context(), key); err != nil || string(got.Kvs[0].Value) != "damaged" {
			t.Errorf("%v, %v", got, err)
		}
	}
	if _, err := client.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	a, b := members[0].secrets(t), members[1].secrets(t)
	if len(a) != 1 || !slices.Equal(a, b) || a[0] == before[0] {
		t.Errorf("%d and %d secrets after the key was deleted", len(a), len(b))
	}
}

// Neither etcd nor its files hold a secret, and neither does the data directory.
func TestTicketSecretsAreSealed(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	dir := filepath.Join(t.TempDir(), "data")
	s := new(sharer)
	g := joinSharing(t, c, dir, "a", s)
	defer g.Close()
	g.secrets(t)
	s.skew.Store(int64(25 * time.Hour))
	if n := len(g.secrets(t)); n != 2 {
		t.Fatalf("%d secrets", n)
	}
	var all []struct{ Secret []byte }
	if err := json.Unmarshal(g.local.Tickets(), &all); err != nil || len(all) != 2 || len(all[0].Secret) != 32 {
		t.Fatalf("%d, %v", len(all), err)
	}
	found := 0
	check := func(where string, b []byte) {
		found++
		for _, one := range all {
			if bytes.Contains(b, one.Secret) || bytes.Contains(b, []byte(base64.StdEncoding.EncodeToString(one.Secret))) {
				t.Errorf("%s holds a secret", where)
			}
		}
	}
	keys, err := c.Client().Get(t.Context(), "", clientv3.WithFromKey())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, kv := range keys.Kvs {
		check(string(kv.Key), kv.Value)
		names[string(kv.Key)] = true
	}
	if !names["/drawbridge/tickets"] {
		t.Errorf("keys: %v", names)
	}
	for _, root := range []string{c.Dir(0), dir} {
		before := found
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			check(path, b)
			return err
		})
		if err != nil || found == before {
			t.Errorf("%s: %v; %d files", root, err, found-before)
		}
	}
}
