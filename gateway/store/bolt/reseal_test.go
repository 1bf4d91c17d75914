package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// keysOf are the two keys of a sealing. If from is not nil, it seals the store
// at first.
type keysOf struct{ from, to *seal.Key }

func bothSealings(t *testing.T) map[string]keysOf {
	return map[string]keysOf{"seal": {nil, sealKey(t, "a")}, "rekey": {sealKey(t, "a"), sealKey(t, "b")}}
}

// batch is small enough that the copy of a large store takes several
// transactions.
const batch = 128 << 10

// large returns the directory of a store that takes several transactions to copy, and
// its state.
func large(t *testing.T, key *seal.Key) (string, *store.State) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	s := openSealed(t, dir, key)
	state := withSecrets(t, s)
	for n := range 3 {
		state = commit(t, s, state, &adminv1.TrustBundle{Name: "b", Source: &adminv1.TrustBundle_Pem{Pem: strings.Repeat(fmt.Sprint(n), 100<<10)}})
	}
	s.Close()
	return dir, state
}

func TestSealingKeepsEverythingAndLeavesNoSecret(t *testing.T) {
	for name, keys := range bothSealings(t) {
		t.Run(name, func(t *testing.T) {
			dir, state := large(t, keys.from)
			if before := bytes.Contains(content(t, dir), []byte(secret)); before != (keys.from == nil) {
				t.Fatalf("before sealing, the file holds a secret: %v", before)
			}
			s := openSealed(t, dir, keys.from)
			id := s.InstanceID()
			if _, err := (resealing{from: keys.from, to: keys.to, batch: batch}).run(dir); !errors.As(err, new(*LockedError)) {
				t.Errorf("while the store is open: %v", err)
			}
			s.Close()

			want := Summary{Revision: 10, Resources: 7, Records: 10, Sealed: true, Opened: true}
			for range 2 { // the second run finds the work done
				if got, err := (resealing{from: keys.from, to: keys.to, batch: batch}).run(dir); err != nil || got != want {
					t.Errorf("%+v, %v", got, err)
				}
			}
			filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				if b, err := os.ReadFile(path); err != nil || bytes.Contains(b, []byte(secret)) {
					t.Errorf("%s holds a secret in the clear, or: %v", path, err)
				}
				return nil
			})
			if mode := stat(t, filepath.Join(dir, fileName)).Mode(); mode != 0o600 {
				t.Errorf("mode %v", mode)
			}
			if _, err := Open(dir, Options{Key: keys.from}); !errors.As(err, new(*SealError)) {
				t.Errorf("with the old key: %v", err)
			}
			s = openSealed(t, dir, keys.to)
			if !sameResources(s.State(), state) || s.InstanceID() != id || len(numbers(t, s, 10)) != 10 {
				t.Errorf("instance %s, revision %d:\n%v", s.InstanceID(), s.State().Revision(), s.State().All())
			}
			change(t, s, s.State(), 5)
		})
	}
}

// A record of the old data key in a freed page would open with the old key.
func TestRekeyLeavesNoDataKeyOfTheOldKey(t *testing.T) {
	old := sealKey(t, "a")
	dir, _ := large(t, old)
	read, err := readAll(filepath.Join(dir, fileName), old)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(content(t, dir), read.wrapped) {
		t.Fatal("the data key is not where the test looks for it")
	}
	if _, err := Rekey(dir, old, sealKey(t, "b")); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(content(t, dir), read.wrapped) {
		t.Error("the old data key is still in the file")
	}
}

// After SIGKILL at any step, the store opens with the old or the new key and has all its
// content. A later run completes the work.
func TestAKilledSealingLeavesAStoreThatOpens(t *testing.T) {
	if dir := os.Getenv("BOLT_TEST_SEAL_KILLED"); dir != "" {
		keys := bothSealings(t)[os.Getenv("BOLT_TEST_SEALING")]
		left, _ := strconv.Atoi(os.Getenv("BOLT_TEST_STEPS"))
		r := resealing{from: keys.from, to: keys.to, batch: batch, reached: func(step string) {
			if left--; left == 0 {
				fmt.Println("killed after", step)
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		}}
		if _, err := r.run(dir); err != nil {
			t.Fatal(err)
		}
		return
	}
	for name, keys := range bothSealings(t) {
		t.Run(name, func(t *testing.T) {
			original, state := large(t, keys.from)
			file := content(t, original)
			var steps []string
			for n := 1; ; n++ {
				dir := filepath.Join(t.TempDir(), "data")
				if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, fileName), file, 0o600)); err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command(os.Args[0], "-test.run=^TestAKilledSealingLeavesAStoreThatOpens$")
				cmd.Env = append(os.Environ(), "BOLT_TEST_SEAL_KILLED="+dir, "BOLT_TEST_SEALING="+name, fmt.Sprint("BOLT_TEST_STEPS=", n))
				out, err := cmd.CombinedOutput()
				step, killed := strings.CutPrefix(strings.TrimSpace(string(out)), "killed after ")
				if !killed && err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				opened := 0
				for _, key := range []*seal.Key{keys.from, keys.to} {
					s, err := Open(dir, Options{Key: key})
					if errors.As(err, new(*SealError)) {
						continue
					}
					if err != nil {
						t.Fatalf("after %s: %v", step, err)
					}
					opened++
					if !sameResources(s.State(), state) || len(numbers(t, s, 10)) != 10 {
						t.Errorf("after %s: revision %d", step, s.State().Revision())
					}
					s.Close()
					if left, _ := filepath.Glob(filepath.Join(dir, fileName+"?*")); len(left) > 0 {
						t.Errorf("after %s and a start: %v is left", step, left)
					}
				}
				if opened != 1 {
					t.Errorf("after %s: %d of the 2 keys open it", step, opened)
				}
				if s, err := (resealing{from: keys.from, to: keys.to, batch: batch}).run(dir); err != nil || s.Revision != state.Revision() {
					t.Errorf("after %s and another run: %+v, %v", step, s, err)
				}
				if !killed {
					break
				}
				steps = append(steps, step)
			}
			if all := strings.Join(steps, ", "); !strings.HasPrefix(all, "create, commit, commit, ") || !strings.HasSuffix(all, "commit, sync, read back, rename") {
				t.Errorf("killed after: %s", all)
			}
		})
	}
}

// A disk that fills up at any point leaves the old store unchanged, and no other
// file.
func TestAFullDiskLeavesTheStoreAsItWas(t *testing.T) {
	if dir := os.Getenv("BOLT_TEST_SEAL_FULL"); dir != "" {
		keys := bothSealings(t)[os.Getenv("BOLT_TEST_SEALING")]
		size, _ := strconv.ParseUint(os.Getenv("BOLT_TEST_SIZE"), 10, 64)
		// A write past the limit fails like a write to a full disk.
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: size}); err != nil {
			t.Fatal(err)
		}
		_, err := resealing{from: keys.from, to: keys.to, batch: batch}.run(dir)
		fmt.Println("error:", err)
		return
	}
	for name, keys := range bothSealings(t) {
		t.Run(name, func(t *testing.T) {
			dir, _ := large(t, keys.from)
			file := content(t, dir)
			for _, size := range []int{4 << 10, 20 << 10, 100 << 10, 250 << 10} {
				cmd := exec.Command(os.Args[0], "-test.run=^TestAFullDiskLeavesTheStoreAsItWas$")
				cmd.Env = append(os.Environ(), "BOLT_TEST_SEAL_FULL="+dir, "BOLT_TEST_SEALING="+name, fmt.Sprint("BOLT_TEST_SIZE=", size))
				out, err := cmd.CombinedOutput()
				if text := string(out); err != nil || !strings.Contains(text, "file too large") || strings.Contains(text, "damaged") {
					t.Errorf("%d bytes: %v\n%s", size, err, text)
				}
				if !bytes.Equal(content(t, dir), file) {
					t.Fatalf("%d bytes: the store was changed", size)
				}
				if left, _ := filepath.Glob(filepath.Join(dir, fileName+"?*")); len(left) > 0 {
					t.Errorf("%d bytes: left %v", size, left)
				}
			}
			if _, err := (resealing{from: keys.from, to: keys.to, batch: batch}).run(dir); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSealingRefusesAStoreThatItCannotOpen(t *testing.T) {
	a, b, c := sealKey(t, "a"), sealKey(t, "b"), sealKey(t, "c")
	sealed, _ := large(t, a)
	for name, try := range map[string]struct {
		dir     string
		keys    keysOf
		problem SealProblem
	}{
		"already sealed with a different key": {sealed, keysOf{nil, b}, KeyWrong},
		"rekey with a wrong old key":          {sealed, keysOf{c, b}, KeyWrong},
		"rekey of an unsealed store":          {filled(t), keysOf{a, b}, NotSealed},
	} {
		before := content(t, try.dir)
		_, err := resealing{from: try.keys.from, to: try.keys.to, batch: batch}.run(try.dir)
		var refused *SealError
		if !errors.As(err, &refused) || refused.Problem != try.problem {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(content(t, try.dir), before) {
			t.Errorf("%s: the store was changed", name)
		}
	}
	if _, err := Seal(t.TempDir(), a); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
	open := filled(t)
	if err := os.Chmod(filepath.Join(open, fileName), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Seal(open, a); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("a file that others can read: %v", err)
	}
}

// Sealing a store of the first format upgrades it to the current format.
func TestAStoreWithoutHistoryIsSealed(t *testing.T) {
	dir := withoutHistory(t)
	key := sealKey(t, "a")
	if got, err := Seal(dir, key); err != nil || got != (Summary{Revision: 1, Resources: 100, Sealed: true, Opened: true}) {
		t.Fatalf("%+v, %v", got, err)
	}
	s := openSealed(t, dir, key)
	change(t, s, s.State(), 2)
}
