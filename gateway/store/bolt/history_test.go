package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// numbers returns the revisions whose records are stored, latest first.
func numbers(t *testing.T, s *Store, last int64) []int64 {
	t.Helper()
	var out []int64
	if err := s.EachRevision(last, func(r *adminv1.Revision) bool {
		out = append(out, r.GetRevision())
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// change commits a change of u1 and returns the new state.
func change(t *testing.T, s *Store, state *store.State, port int) *store.State {
	t.Helper()
	u := upstream(1)
	u.Endpoints[0].Address = fmt.Sprintf("127.0.0.1:%d", port)
	return commit(t, s, state, u)
}

func commit(t *testing.T, s *Store, state *store.State, resources ...store.Resource) *store.State {
	t.Helper()
	var e store.Edit
	for _, r := range resources {
		e.Puts = append(e.Puts, store.Put{Resource: r})
	}
	d := draft(t, state, e)
	if err := s.Commit(recorded(d)); err != nil {
		t.Fatal(err)
	}
	return d.State()
}

func TestTheOldestRecordsAreDeletedOverTheLimit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s, err := Open(dir, Options{History: 3})
	if err != nil {
		t.Fatal(err)
	}
	state := s.State()
	for port := 1; port <= 6; port++ {
		state = change(t, s, state, port)
	}
	check := func(want string) {
		t.Helper()
		if got := fmt.Sprint(numbers(t, s, state.Revision())); got != want {
			t.Errorf("stored: %s, want %s", got, want)
		}
		var priors int
		if err := s.db.View(func(tx *bbolt.Tx) error {
			return eachHistoryRecord(tx, format, func(purpose, _, _ []byte) error {
				if bytes.Equal(purpose, priorsBucket) {
					priors++
				}
				return nil
			})
		}); err != nil || priors != strings.Count(want, " ")+1 {
			t.Errorf("%d priors of %s: %v", priors, want, err)
		}
	}
	check("[6 5 4]")
	if oldest, err := s.Oldest(); oldest != 4 || err != nil {
		t.Errorf("oldest is %d, %v", oldest, err)
	}
	if complete, err := s.EachPrior(2, 6, func(revisions.Prior) {}); complete || err != nil {
		t.Errorf("without revision 3: complete %v, %v", complete, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A lower limit applies from the next commit on, even to older records.
	if s, err = Open(dir, Options{History: 1}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	state = change(t, s, s.State(), 9)
	check("[7]")
}

// The bytes are counted too, but the latest record is always stored.
func TestTheRecordsAreBoundedInBytes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, dir)
	state := s.State()
	const mib = 1 << 20
	bundles := func(pem string) (all []store.Resource) {
		for i := range 4 {
			all = append(all, &adminv1.TrustBundle{Name: fmt.Sprint("b", i), Source: &adminv1.TrustBundle_Pem{Pem: pem}})
		}
		return all
	}
	for n := range 9 {
		state = commit(t, s, state, bundles(strings.Repeat(fmt.Sprint(n), 5*mib/2))...)
	}
	if got := fmt.Sprint(numbers(t, s, 9)); got != "[9 8 7 6 5 4]" { // each record has 10 MiB
		t.Errorf("stored: %s", got)
	}
	s.Close()
	s = open(t, dir)
	commit(t, s, s.State(), bundles("small")...)
	if got := fmt.Sprint(numbers(t, s, 10)); got != "[10 9 8 7 6 5]" {
		t.Errorf("stored after a restart: %s", got)
	}
}

// withoutHistory returns the directory of a store in format 1, which has no history.
func withoutHistory(t *testing.T) string {
	t.Helper()
	dir := filled(t)
	path := filepath.Join(dir, fileName)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(tx.DeleteBucket(historyBucket), putNumber(tx.Bucket(metaBucket), formatKey, 1))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A store in format 2 has the old layout of the history. The upgrade keeps all
// records.
func TestTheHistoryOfFormat2IsUpgraded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, dir)
	state := s.State()
	for port := 1; port <= 3; port++ {
		state = change(t, s, state, port)
	}
	want := priorsOf(t, s, 3)
	err := s.db.Update(func(tx *bbolt.Tx) error {
		old := map[string]*bbolt.Bucket{}
		for _, purpose := range [][]byte{revisionsBucket, priorsBucket} {
			b, err := tx.CreateBucket(purpose)
			if err != nil {
				return err
			}
			old[string(purpose)] = b
		}
		err := eachHistoryRecord(tx, format, func(purpose, key, record []byte) error { return old[string(purpose)].Put(key, record) })
		return errors.Join(err, tx.DeleteBucket(historyBucket), putNumber(tx.Bucket(metaBucket), formatKey, 2))
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	file := content(t, dir)
	sealed := filepath.Join(t.TempDir(), "data")
	if err := errors.Join(os.Mkdir(sealed, 0o700), os.WriteFile(filepath.Join(sealed, fileName), file, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Seal(sealed, sealKey(t, "a")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // in the second round, the store has the current format
		s = open(t, dir)
		if got := priorsOf(t, s, 3); got != want || fmt.Sprint(numbers(t, s, 3)) != "[3 2 1]" {
			t.Errorf("%v:\n%s\nwant\n%s", numbers(t, s, 3), got, want)
		}
		s.Close()
	}
	if got := priorsOf(t, openSealed(t, sealed, sealKey(t, "a")), 3); got != want {
		t.Errorf("sealed:\n%s\nwant\n%s", got, want)
	}
}

// priorsOf returns the priors of all revisions up to a number, as text.
func priorsOf(t *testing.T, s *Store, last int64) string {
	t.Helper()
	var all []string
	complete, err := s.EachPrior(0, last, func(p revisions.Prior) { all = append(all, fmt.Sprint(p.Ref, " ", p.Resource)) })
	if err != nil || !complete {
		t.Fatalf("%v, %v", complete, err)
	}
	return strings.Join(all, "\n")
}

// A store in format 1 has no history. The upgrade keeps its resources and adds a
// history.
func TestAStoreWithoutHistoryIsUpgraded(t *testing.T) {
	dir := withoutHistory(t)
	for range 2 {
		s := open(t, dir)
		if s.State().Revision() != 1 || s.State().Len(adminv1.Kind_KIND_UPSTREAM) != 100 {
			t.Fatalf("revision %d, %d upstreams", s.State().Revision(), s.State().Len(adminv1.Kind_KIND_UPSTREAM))
		}
		if oldest, err := s.Oldest(); oldest != 0 || err != nil {
			t.Errorf("oldest is %d, %v", oldest, err)
		}
		s.Close()
	}
	s := open(t, dir)
	change(t, s, s.State(), 2)
	if got := fmt.Sprint(numbers(t, s, 2)); got != "[2]" {
		t.Errorf("stored: %s", got)
	}
	h := revisions.NewHistory(s)
	if _, err := h.Revision(1); err == nil || !strings.Contains(err.Error(), "oldest one stored is 2") {
		t.Errorf("%v", err)
	}
}

func TestPriorResourceIsReadBack(t *testing.T) {
	for _, p := range []revisions.Prior{
		{Ref: store.Ref{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "u1"}, Resource: upstream(1)},
		{Ref: store.Ref{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "u1"}, Resource: upstream(1), Files: strings.Repeat("d", 32)},
		{Ref: store.Ref{Kind: adminv1.Kind_KIND_ROUTE, Name: "r"}},
	} {
		at := priorKey(1, p.Ref)
		record, err := encodePrior(codec{}, at, p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodePrior(codec{}, at, p.Ref, record)
		if err != nil || got.Ref != p.Ref || got.Files != p.Files || (got.Resource == nil) != (p.Resource == nil) ||
			p.Resource != nil && !proto.Equal(got.Resource, p.Resource) {
			t.Errorf("%v, %v, want %v", got, err, p)
		}
	}
}

// A history with a missing or incomplete record counts as damage.
func TestAnIncompleteHistoryIsRefused(t *testing.T) {
	for name, damage := range map[string]func(*bbolt.Tx) error{
		"a gap":                          func(tx *bbolt.Tx) error { return tx.Bucket(historyBucket).DeleteBucket(revisionKeyOf(2)) },
		"the latest revision is missing": func(tx *bbolt.Tx) error { return tx.Bucket(historyBucket).DeleteBucket(revisionKeyOf(3)) },
		"a prior is missing": func(tx *bbolt.Tx) error {
			return recordsOf(tx, 2).Delete(priorKey(2, store.Ref{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "u1"})[8:])
		},
		"a changed prior": func(tx *bbolt.Tx) error {
			return putHistory(tx, priorKey(2, store.Ref{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "u1"}), []byte("nonsense"))
		},
		"a prior without its revision": func(tx *bbolt.Tx) error { return recordsOf(tx, 3).Delete(headKey) },
		"a key that is not a revision": func(tx *bbolt.Tx) error {
			return tx.Bucket(historyBucket).Put([]byte("12345678"), []byte("nonsense"))
		},
		"no bucket": func(tx *bbolt.Tx) error { return tx.DeleteBucket(historyBucket) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			s := open(t, dir)
			state := s.State()
			for port := 1; port <= 3; port++ {
				state = change(t, s, state, port)
			}
			if err := errors.Join(s.db.Update(damage), s.Close()); err != nil {
				t.Fatal(err)
			}
			var corrupt *CorruptError
			if _, err := Open(dir, Options{}); !errors.As(err, &corrupt) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Reading the history does not disturb commits, and returns only complete
// records.
func TestTheHistoryIsReadDuringCommits(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "data"), Options{History: 5})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	done, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-done:
				return
			default:
			}
			oldest, err := s.Oldest()
			if err != nil {
				failed <- err
				return
			}
			if _, err = s.EachPrior(oldest, oldest+3, func(revisions.Prior) {}); err != nil {
				failed <- err
				return
			}
		}
	}()
	state := s.State()
	for port := 1; port <= 50; port++ {
		state = change(t, s, state, port)
	}
	close(done)
	select {
	case err := <-failed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the reader does not end")
	}
}
