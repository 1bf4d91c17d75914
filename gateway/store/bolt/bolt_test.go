package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func upstream(i int) *adminv1.Upstream {
	return &adminv1.Upstream{
		Name:      fmt.Sprintf("u%d", i),
		Labels:    map[string]string{"fill": strings.Repeat("x", 200)},
		Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1"}},
	}
}

func draft(t *testing.T, s *store.State, e store.Edit) *store.Draft {
	t.Helper()
	var bad invalid.List
	d := s.Edit(e, &bad)
	if err := bad.Err(); err != nil {
		t.Fatal(err)
	}
	return d
}

// recorded returns a draft with the record of its revision.
func recorded(d *store.Draft) (*store.Draft, *revisions.Record) {
	return d, revisions.NewRecord(d, store.Edit{}, time.Now(), func(store.Ref) string { return "" })
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// filled returns a data directory with a hundred upstreams in it.
func filled(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, dir)
	var e store.Edit
	for i := range 100 {
		e.Puts = append(e.Puts, store.Put{Resource: upstream(i)})
	}
	if err := s.Commit(recorded(draft(t, s.State(), e))); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestACommittedDraftSurvivesReopening(t *testing.T) {
	dir := filled(t)
	s := open(t, dir)
	if s.State().Revision() != 1 || s.State().Len(adminv1.Kind_KIND_UPSTREAM) != 100 {
		t.Fatalf("revision %d, %d upstreams", s.State().Revision(), s.State().Len(adminv1.Kind_KIND_UPSTREAM))
	}
	changed := upstream(1)
	changed.Endpoints[0].Address = "127.0.0.1:2"
	d := draft(t, s.State(), store.Edit{
		Puts:    []store.Put{{Resource: changed}, {Resource: upstream(2)}},
		Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "u3"}},
	})
	if err := s.Commit(recorded(d)); err != nil {
		t.Fatal(err)
	}
	s.Close()

	got := open(t, dir).State()
	want := d.State()
	if got.Revision() != want.Revision() || len(got.All()) != len(want.All()) {
		t.Fatalf("revision %d with %d resources, want %d with %d", got.Revision(), len(got.All()), want.Revision(), len(want.All()))
	}
	for i, r := range want.All() {
		if !proto.Equal(got.All()[i], r) {
			t.Errorf("got %v, want %v", got.All()[i], r)
		}
	}
}

func TestASecondProcessLearnsWhichProcessHoldsTheDirectory(t *testing.T) {
	dir := filled(t)
	open(t, dir)
	_, err := Open(dir, Options{})
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Fatalf("%v", err)
	}
}

func TestTheLockEndsWithItsProcess(t *testing.T) {
	if dir := os.Getenv("BOLT_TEST_HOLD"); dir != "" {
		if _, err := Open(dir, Options{}); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("held\n")
		select {}
	}
	dir := filled(t)
	holder := exec.Command(os.Args[0], "-test.run=^TestTheLockEndsWithItsProcess$")
	holder.Env = append(os.Environ(), "BOLT_TEST_HOLD="+dir)
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	var locked *LockedError
	if _, err := Open(dir, Options{}); !errors.As(err, &locked) || locked.PID != holder.Process.Pid {
		t.Errorf("%v", err)
	}
	holder.Process.Kill()
	holder.Wait()
	open(t, dir)
}

// A process that is being started holds copies of all files of its parent.
func TestTheLockEndsWhenTheStoreIsClosedDuringAFork(t *testing.T) {
	dir := t.TempDir() + "/data"
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	held, err := unix.Dup(int(s.lock.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(held)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestWiderModesAreRefused(t *testing.T) {
	dir := filled(t)
	for path, mode := range map[string]os.FileMode{dir: 0o750, filepath.Join(dir, fileName): 0o640} {
		before, _ := os.Stat(path)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "chmod") {
			t.Errorf("%s with mode %o: %v", path, mode, err)
			if s != nil {
				s.Close()
			}
		}
		os.Chmod(path, before.Mode())
	}
	open(t, dir)
}

func TestIrregularFilesAreRefusedAndKept(t *testing.T) {
	dir := t.TempDir()
	os.Chmod(dir, 0o700)
	refused := func(say string) {
		t.Helper()
		s, err := Open(dir, Options{})
		if s != nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), say) || strings.Contains(err.Error(), "damaged") {
			t.Errorf("%v", err)
		}
	}
	db, lock := filepath.Join(dir, fileName), filepath.Join(dir, lockName)
	if err := os.Mkdir(db, 0o700); err != nil {
		t.Fatal(err)
	}
	refused("not a regular file")
	os.Remove(db)
	if err := unix.Mkfifo(db, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("not a regular file")
	os.Remove(db)
	os.Remove(lock)

	other := filepath.Join(t.TempDir(), "other")
	if err := errors.Join(os.WriteFile(other, []byte("precious"), 0o600), os.Symlink(other, lock)); err != nil {
		t.Fatal(err)
	}
	refused("lock")
	if content, err := os.ReadFile(other); string(content) != "precious" {
		t.Errorf("the target of the lock is now %q, %v", content, err)
	}
}

func TestFilesAreForTheirOwnerOnly(t *testing.T) {
	dir := filled(t)
	for path, want := range map[string]os.FileMode{"": 0o700, fileName: 0o600, lockName: 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q has mode %v (%v), want %o", path, info.Mode(), err, want)
		}
	}
}

func TestADamagedDatabaseIsRefusedAndLeftAsItIs(t *testing.T) {
	good, err := os.ReadFile(filepath.Join(filled(t), fileName))
	if err != nil {
		t.Fatal(err)
	}
	damages := map[string][]byte{
		"empty":              {},
		"text":               []byte("not a database\n"),
		"cut to one page":    good[:4096],
		"cut in the middle":  good[:len(good)/2/4096*4096],
		"cut within a page":  good[:3*4096+100],
		"zeroes":             make([]byte, len(good)),
		"both metas zeroed":  append(make([]byte, 8192), good[8192:]...),
		"pages after metas":  append(bytes.Clone(good[:8192]), bytes.Repeat([]byte{0xff}, len(good)-8192)...),
		"one byte of a name": bytes.Replace(good, []byte("u57"), []byte("u5Z"), -1),
		"one byte of a value": func() []byte {
			b := bytes.Clone(good)
			i := bytes.LastIndex(b, []byte("127.0.0.1:1"))
			b[i] = '9'
			return b
		}(),
	}
	for name, content := range damages {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			os.Chmod(dir, 0o700)
			path := filepath.Join(dir, fileName)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(dir, Options{})
			if s != nil {
				s.Close()
			}
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "backup") {
				t.Errorf("%v", err)
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(after, content) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestEveryFlippedByteIsDetectedOrHarmless(t *testing.T) {
	dir := filled(t)
	want := open(t, dir)
	state := want.State()
	want.Close()
	path := filepath.Join(dir, fileName)
	good, _ := os.ReadFile(path)
	for at := 0; at < len(good); at += 97 {
		bad := bytes.Clone(good)
		bad[at] ^= 0x5a
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readAll(path, nil)
		if err != nil {
			continue
		}
		// The older of the two meta pages holds the state before the last commit.
		// Only damage to the newer page makes it current.
		if got.state.Revision() == 0 && at < 8192 {
			continue
		}
		if len(got.state.All()) != len(state.All()) {
			t.Fatalf("byte %d flipped: %d resources of %d, and no error", at, len(got.state.All()), len(state.All()))
		}
		for i, r := range state.All() {
			if !proto.Equal(got.state.All()[i], r) {
				t.Fatalf("byte %d flipped: %v is now %v, and no error", at, r, got.state.All()[i])
			}
		}
	}
}

// Records that a newer version keeps in an additional bucket belong to the state
// too.
func TestANewerFormatIsRefusedWhole(t *testing.T) {
	for name, change := range map[string]func(*bbolt.Tx) error{
		"a newer format": func(tx *bbolt.Tx) error {
			return tx.Bucket(metaBucket).Put(formatKey, []byte{0, 0, 0, 0, 0, 0, 0, sealedFormat + 1})
		},
		"a kind of a newer version": func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucket([]byte("KIND_POLICY"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filled(t)
			db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(change), db.Close()); err != nil {
				t.Fatal(err)
			}
			var corrupt *CorruptError
			if _, err := Open(dir, Options{}); err == nil || errors.As(err, &corrupt) || !strings.Contains(err.Error(), "newer version") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestIncompleteNewDatabaseIsCreatedAgain(t *testing.T) {
	dir := t.TempDir()
	os.Chmod(dir, 0o700)
	if err := os.WriteFile(filepath.Join(dir, fileName+".new"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := open(t, dir).State().Revision(); got != 0 {
		t.Errorf("revision %d", got)
	}
}

func BenchmarkCommit(b *testing.B) { benchmarkCommit(b, nil) }

func benchmarkCommit(b *testing.B, key *seal.Key) {
	s, err := Open(filepath.Join(b.TempDir(), "data"), Options{Key: key})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	state := s.State()
	for i := 0; b.Loop(); i++ {
		u := upstream(i % 100)
		u.Labels["n"] = fmt.Sprint(i)
		var bad invalid.List
		d := state.Edit(store.Edit{Puts: []store.Put{{Resource: u}}}, &bad)
		if err := s.Commit(recorded(d)); err != nil {
			b.Fatal(err)
		}
		state = d.State()
	}
}
