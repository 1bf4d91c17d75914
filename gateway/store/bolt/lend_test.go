package bolt

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A reclaimed store has its old content, no matter what the other process did.
func TestALentStoreIsReclaimedAsItWas(t *testing.T) {
	for name, other := range map[string]func(t *testing.T, dir string){
		"no change": func(*testing.T, string) {},
		"a write": func(t *testing.T, dir string) {
			s := open(t, dir)
			d := draft(t, s.State(), store.Edit{Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "u3"}}})
			if err := errors.Join(s.Commit(recorded(d)), s.Close()); err != nil {
				t.Fatal(err)
			}
		},
		"a newer format": func(t *testing.T, dir string) {
			db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = db.Update(func(tx *bbolt.Tx) error { return putNumber(tx.Bucket(metaBucket), formatKey, format+1) })
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
		},
		"damage": func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, fileName), 100); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filled(t)
			s := open(t, dir)
			if err := s.Lend(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Oldest(); err == nil {
				t.Error("a lent database is read")
			}
			other(t, dir)
			if err := s.Reclaim(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Revision(1); err != nil {
				t.Error(err)
			}
			d := draft(t, s.State(), store.Edit{Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "u4"}}})
			if err := errors.Join(s.Commit(recorded(d)), s.Close()); err != nil {
				t.Fatal(err)
			}
			if got := open(t, dir).State(); got.Revision() != 2 || got.Len(adminv1.Kind_KIND_UPSTREAM) != 99 {
				t.Errorf("revision %d with %d upstreams", got.Revision(), got.Len(adminv1.Kind_KIND_UPSTREAM))
			}
		})
	}
}

func TestALentStoreIsReclaimedOnlyWhenItIsFree(t *testing.T) {
	dir := filled(t)
	s := open(t, dir)
	if err := s.Lend(); err != nil {
		t.Fatal(err)
	}
	other := open(t, dir)
	var locked *LockedError
	if err := s.Reclaim(); !errors.As(err, &locked) {
		t.Errorf("%v", err)
	}
	other.Close()
	if err := s.Reclaim(); err != nil {
		t.Error(err)
	}
}

func TestAGivenStoreLeavesNoCopy(t *testing.T) {
	dir := filled(t)
	s := open(t, dir)
	if err := errors.Join(s.Lend(), s.Give(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, fileName+".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	open(t, dir)
}
