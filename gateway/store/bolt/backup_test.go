package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
)

// backupOf returns a backup of the store.
func backupOf(t *testing.T, s *Store) []byte {
	t.Helper()
	r, err := s.Backup()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sameResources(a, b *store.State) bool {
	return a.Revision() == b.Revision() && slices.EqualFunc(a.All(), b.All(), func(x, y store.Resource) bool { return proto.Equal(x, y) })
}

func TestARestoredBackupHoldsTheSame(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "data"))
	state := s.State()
	for port := 1; port <= 5; port++ {
		state = change(t, s, state, port)
	}
	backup := backupOf(t, s)
	change(t, s, state, 6) // this change is not in the backup
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(s.db.Path()), ".backup-*")); err != nil || len(left) > 0 {
		t.Errorf("left in the data directory: %v, %v", left, err)
	}

	dir := filepath.Join(t.TempDir(), "restored")
	got, err := Restore(dir, bytes.NewReader(backup), nil)
	if err != nil || got != (Summary{Revision: 5, Resources: 1, Records: 5, Opened: true}) {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := Check(dir, nil); err != nil || got != (Summary{Revision: 5, Resources: 1, Records: 5, Opened: true}) {
		t.Errorf("checked: %+v, %v", got, err)
	}
	r := open(t, dir)
	if !sameResources(r.State(), state) {
		t.Errorf("restored revision %d:\n%v\nwant revision %d:\n%v", r.State().Revision(), r.State().All(), state.Revision(), state.All())
	}
	if fmt.Sprint(numbers(t, r, 5)) != "[5 4 3 2 1]" || r.InstanceID() == s.InstanceID() || r.InstanceID() == "" {
		t.Errorf("revisions %v of instance %q", numbers(t, r, 5), r.InstanceID())
	}
	if _, err := Check(dir, nil); !errors.As(err, new(*LockedError)) {
		t.Errorf("checked while it is open: %v", err)
	}
	if _, err := Restore(dir, bytes.NewReader(backup), nil); !errors.As(err, new(*LockedError)) {
		t.Errorf("restored while it is open: %v", err)
	}
	r.Close()
	if _, err := Restore(dir, bytes.NewReader(backup), nil); err == nil || !strings.Contains(err.Error(), "exists: move it away first") {
		t.Errorf("restored over a database: %v", err)
	}
}

// A backup that is truncated at any point, or damaged, leaves no database.
func TestADamagedBackupIsNotRestored(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "data"))
	state := s.State()
	for port := 1; port <= 30; port++ {
		state = change(t, s, state, port)
	}
	backup := backupOf(t, s)
	try := func(name string, damaged []byte) {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "restored")
		if got, err := Restore(dir, bytes.NewReader(damaged), nil); err == nil {
			t.Errorf("%s: restored %+v", name, got)
		}
		left, err := filepath.Glob(filepath.Join(dir, fileName+"*"))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
	for size := 0; size < len(backup); size += 4 << 10 {
		try(fmt.Sprint(size, " bytes"), backup[:size])
	}
	try("one byte missing", backup[:len(backup)-1])
	try("one extra byte", append(bytes.Clone(backup), 0))
	at := bytes.Index(backup, []byte("127.0.0.1:30"))
	damaged := bytes.Clone(backup)
	damaged[at]++
	try("one changed byte", damaged)
	if _, err := Check(t.TempDir(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the check of an empty directory: %v", err)
	}
}

// Each backup made during concurrent commits holds exactly one revision.
func TestBackupsDuringCommitsAreConsistent(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "data"))
	states := map[int64]*store.State{0: s.State()}
	var mu sync.Mutex
	var backups sync.WaitGroup
	var made [][]byte
	for range 3 {
		backups.Go(func() {
			for range 5 {
				r, err := s.Backup()
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(r)
				if err := errors.Join(err, r.Close()); err != nil {
					t.Error(err)
				}
				mu.Lock()
				made = append(made, b)
				mu.Unlock()
			}
		})
	}
	state := s.State()
	for port := 1; port <= 30; port++ {
		state = change(t, s, state, port)
		states[state.Revision()] = state
	}
	backups.Wait()
	for i, b := range made {
		dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
		got, err := Restore(dir, bytes.NewReader(b), nil)
		if err != nil {
			t.Fatal(err)
		}
		r := open(t, dir)
		if !sameResources(r.State(), states[got.Revision]) {
			t.Errorf("a backup of revision %d differs", got.Revision)
		}
		r.Close()
		if info, err := os.Stat(filepath.Join(dir, fileName)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
	}
}
