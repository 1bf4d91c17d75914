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

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// sealKey returns a key that repeats one hexadecimal digit.
func sealKey(t testing.TB, digit string) *seal.Key {
	t.Helper()
	k, err := seal.ParseKey([]byte(strings.Repeat(digit, 64)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func openSealed(t *testing.T, dir string, key *seal.Key) *Store {
	t.Helper()
	s, err := Open(dir, Options{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// secret occurs only in private keys and passphrases.
const secret = "MIIEvQIBADANBgkqhkiG9w0BAQ"

func certificate(n int) *adminv1.Certificate {
	return &adminv1.Certificate{Name: "c", Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{
		CertificateChain: "a chain", PrivateKey: fmt.Sprint(secret, " key ", n), Passphrase: fmt.Sprint(secret, " passphrase ", n)}}}
}

// withSecrets fills a store with current, replaced and deleted keys.
func withSecrets(t *testing.T, s *Store) *store.State {
	t.Helper()
	state := s.State()
	for n := range 5 {
		state = commit(t, s, state, certificate(n), upstream(n))
	}
	d := draft(t, state, store.Edit{Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_CERTIFICATE, Name: "c"}}})
	if err := s.Commit(recorded(d)); err != nil {
		t.Fatal(err)
	}
	return commit(t, s, d.State(), certificate(6))
}

func content(t *testing.T, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestASealedStoreIsTheSameAfterReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	key := sealKey(t, "a")
	s := openSealed(t, dir, key)
	if !s.Sealed() {
		t.Fatal("a new store with a key is not sealed")
	}
	state := withSecrets(t, s)
	pending := draft(t, state, store.Edit{Puts: []store.Put{{Resource: certificate(7)}}})
	record := revisions.NewRecord(pending, store.Edit{Comment: secret}, time.Now(), func(store.Ref) string { return "" })
	record.Pending = &adminv1.Pending{Revision: pending.State().Revision(), Principal: secret}
	if err := s.Commit(pending, record); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if bytes.Contains(content(t, dir), []byte(secret)) {
		t.Error("the file holds a secret in the clear")
	}

	s = openSealed(t, dir, key)
	if !sameResources(s.State(), pending.State()) || s.Pending().GetPrincipal() != secret {
		t.Errorf("revision %d: %v, pending %v", s.State().Revision(), s.State().All(), s.Pending())
	}
	if got := fmt.Sprint(numbers(t, s, 8)); got != "[8 7 6 5 4 3 2 1]" {
		t.Errorf("stored: %s", got)
	}
	var priors []string
	if complete, err := s.EachPrior(0, 8, func(p revisions.Prior) {
		if c, ok := p.Resource.(*adminv1.Certificate); ok {
			priors = append(priors, c.GetPem().GetPrivateKey())
		}
	}); err != nil || !complete || len(priors) != 6 || priors[5] != fmt.Sprint(secret, " key 6") {
		t.Errorf("%v, %v, %v", priors, complete, err)
	}
	if err := s.EndPending(record.Revision); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s = openSealed(t, dir, key); s.Pending() != nil {
		t.Errorf("pending: %v", s.Pending())
	}
}

// Each refusal names the fix, and leaves the file unchanged.
func TestAStoreOpenedWithoutItsKeyIsRefusedAndNotChanged(t *testing.T) {
	key, other := sealKey(t, "a"), sealKey(t, "b")
	sealed := filepath.Join(t.TempDir(), "sealed")
	s := openSealed(t, sealed, key)
	withSecrets(t, s)
	s.Close()
	for _, c := range []struct {
		dir     string
		key     *seal.Key
		problem SealProblem
		advice  string
	}{
		{sealed, nil, KeyMissing, "--seal-key-file"},
		{sealed, other, KeyWrong, "give the key that it was sealed with"},
		{filled(t), key, NotSealed, `"drawbridge store seal"`},
	} {
		path := filepath.Join(c.dir, fileName)
		before, info := content(t, c.dir), stat(t, path)
		s, err := Open(c.dir, Options{Key: c.key})
		if s != nil {
			s.Close()
		}
		var refused *SealError
		if !errors.As(err, &refused) || *refused != (SealError{path, c.problem}) || !strings.Contains(err.Error(), c.advice) {
			t.Errorf("%v", err)
		}
		if after := stat(t, path); !bytes.Equal(content(t, c.dir), before) || !after.ModTime().Equal(info.ModTime()) || !os.SameFile(after, info) {
			t.Errorf("%v: the file was changed", err)
		}
	}
}

func stat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func isHistory(p seal.Place) bool {
	return bytes.Equal(p.Bucket, revisionsBucket) || bytes.Equal(p.Bucket, priorsBucket)
}

func recordAt(tx *bbolt.Tx, p seal.Place) (found []byte) {
	if !isHistory(p) {
		return tx.Bucket(p.Bucket).Get(p.Key)
	}
	eachHistoryRecord(tx, format, func(purpose, key, record []byte) error {
		if bytes.Equal(purpose, p.Bucket) && bytes.Equal(key, p.Key) {
			found = record
		}
		return nil
	})
	return found
}

func putRecordAt(tx *bbolt.Tx, p seal.Place, record []byte) error {
	if isHistory(p) {
		return putHistory(tx, p.Key, record)
	}
	return tx.Bucket(p.Bucket).Put(p.Key, record)
}

// A value that is moved to another resource, kind, revision or purpose does not open,
// even if every checksum of the file matches.
func TestSealedValuesCannotBeSwapped(t *testing.T) {
	key := sealKey(t, "a")
	cert := priorKey(2, store.Ref{Kind: adminv1.Kind_KIND_CERTIFICATE, Name: "c"})
	cert3 := priorKey(3, store.Ref{Kind: adminv1.Kind_KIND_CERTIFICATE, Name: "c"})
	certificates, upstreams := []byte(adminv1.Kind_KIND_CERTIFICATE.String()), []byte(adminv1.Kind_KIND_UPSTREAM.String())
	for name, c := range map[string]struct{ from, to seal.Place }{
		"another resource":               {seal.Place{Bucket: upstreams, Key: []byte("u1")}, seal.Place{Bucket: upstreams, Key: []byte("u2")}},
		"another kind":                   {seal.Place{Bucket: upstreams, Key: []byte("u1")}, seal.Place{Bucket: certificates, Key: []byte("c")}},
		"a historical value as current":  {seal.Place{Bucket: priorsBucket, Key: cert}, seal.Place{Bucket: certificates, Key: []byte("c")}},
		"a current value in the history": {seal.Place{Bucket: certificates, Key: []byte("c")}, seal.Place{Bucket: priorsBucket, Key: cert}},
		"a prior in another revision":    {seal.Place{Bucket: priorsBucket, Key: cert}, seal.Place{Bucket: priorsBucket, Key: cert3}},
		"a record as another revision":   {seal.Place{Bucket: revisionsBucket, Key: revisionKeyOf(2)}, seal.Place{Bucket: revisionsBucket, Key: revisionKeyOf(3)}},
		"a record as the pending one":    {seal.Place{Bucket: revisionsBucket, Key: revisionKeyOf(7)}, seal.Place{Bucket: metaBucket, Key: pendingKey}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			s := openSealed(t, dir, key)
			withSecrets(t, s)
			err := s.db.Update(func(tx *bbolt.Tx) error {
				value := recordAt(tx, c.from)
				if value == nil {
					t.Fatal("there is no value to move")
				}
				if err := putRecordAt(tx, c.to, bytes.Clone(value)); err != nil {
					return err
				}
				var sum uint64
				for _, k := range store.Kinds() {
					tx.Bucket([]byte(k.String())).ForEach(func(name, record []byte) error {
						sum += fingerprint(k, name, record)
						return nil
					})
				}
				return putNumber(tx.Bucket(metaBucket), sumKey, sum)
			})
			if err := errors.Join(err, s.Close()); err != nil {
				t.Fatal(err)
			}
			if _, err := Check(dir, nil); err != nil {
				t.Errorf("the test did not correct the checksums: %v", err)
			}
			if _, err := Open(dir, Options{Key: key}); err == nil || !strings.Contains(err.Error(), "sealed for a different place") {
				t.Errorf("%v", err)
			}
		})
	}
}

// An attacker with write access to the file cannot replace a sealed state with
// an unsealed one.
func TestASealedStoreIsNotReadAsAnUnsealedOne(t *testing.T) {
	key := sealKey(t, "a")
	for name, change := range map[string]func(meta *bbolt.Bucket) error{
		"its format":   func(meta *bbolt.Bucket) error { return putNumber(meta, formatKey, format) },
		"its data key": func(meta *bbolt.Bucket) error { return meta.Delete(dataKeyKey) },
		"its format and its data key": func(meta *bbolt.Bucket) error {
			return errors.Join(putNumber(meta, formatKey, format), meta.Delete(dataKeyKey))
		},
	} {
		dir := filepath.Join(t.TempDir(), "data")
		s := openSealed(t, dir, key)
		withSecrets(t, s)
		err := s.db.Update(func(tx *bbolt.Tx) error { return change(tx.Bucket(metaBucket)) })
		if err := errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
		for _, k := range []*seal.Key{key, nil} {
			if s, err := Open(dir, Options{Key: k}); err == nil {
				s.Close()
				t.Errorf("without %s, key %v: it opens", name, k)
			}
		}
	}
}

func TestEveryFlippedByteOfASealedStoreIsDetectedOrHarmless(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	key := sealKey(t, "a")
	s := openSealed(t, dir, key)
	state := withSecrets(t, s)
	s.Close()
	path, good := filepath.Join(dir, fileName), content(t, dir)
	for at := 0; at < len(good); at += 211 {
		bad := bytes.Clone(good)
		bad[at] ^= 0x5a
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readAll(path, key)
		if err == nil && !sameResources(got.state, state) && (got.state.Revision() != state.Revision()-1 || at >= 8192) {
			t.Fatalf("byte %d flipped: revision %d, and no error", at, got.state.Revision())
		}
		if mismatch, ok := errors.AsType[*SealError](err); ok {
			t.Errorf("byte %d flipped: %v", at, mismatch)
		}
	}
}

func TestASealedBackupIsRestored(t *testing.T) {
	key := sealKey(t, "a")
	s := openSealed(t, filepath.Join(t.TempDir(), "data"), key)
	state := withSecrets(t, s)
	backup := backupOf(t, s)
	if bytes.Contains(backup, []byte(secret)) {
		t.Error("the backup holds a secret in the clear")
	}
	dirs := t.TempDir()
	for name, k := range map[string]*seal.Key{"with its key": key, "without a key": nil} {
		dir := filepath.Join(dirs, name)
		want := Summary{Revision: 7, Resources: 6, Records: 7, Sealed: true, Opened: k != nil}
		if got, err := Restore(dir, bytes.NewReader(backup), k); err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if got, err := Check(dir, k); err != nil || got != want {
			t.Errorf("checked %s: %+v, %v", name, got, err)
		}
		r := openSealed(t, dir, key)
		if !sameResources(r.State(), state) || fmt.Sprint(numbers(t, r, 7)) != "[7 6 5 4 3 2 1]" {
			t.Errorf("%s: revision %d:\n%v", name, r.State().Revision(), r.State().All())
		}
		change(t, r, r.State(), 9)
	}
	for name, c := range map[string]struct {
		backup []byte
		key    *seal.Key
		fault  string
	}{
		"another key":                {backup, sealKey(t, "b"), "the backup is sealed with a different key"},
		"an unsealed backup":         {content(t, filled(t)), key, "the backup is not sealed"},
		"truncated, without its key": {backup[:len(backup)-4096], nil, "the backup is "},
	} {
		dir := filepath.Join(dirs, name)
		_, err := Restore(dir, bytes.NewReader(c.backup), c.key)
		if err == nil || !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, fileName+"*")); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
}

// Without its key a sealed store is still checked for damage.
func TestADamagedSealedStoreIsFoundWithoutItsKey(t *testing.T) {
	for name, damage := range map[string]func(*bbolt.Tx) error{
		"a missing resource": func(tx *bbolt.Tx) error { return tx.Bucket([]byte("KIND_UPSTREAM")).Delete([]byte("u1")) },
		"a changed record": func(tx *bbolt.Tx) error {
			return putHistory(tx, revisionKeyOf(3), []byte("nonsense"))
		},
		"a changed data key": func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(dataKeyKey, []byte("nonsense")) },
		"no history":         func(tx *bbolt.Tx) error { return tx.DeleteBucket(historyBucket) },
	} {
		dir := filepath.Join(t.TempDir(), "data")
		s := openSealed(t, dir, sealKey(t, "a"))
		withSecrets(t, s)
		if err := errors.Join(s.db.Update(damage), s.Close()); err != nil {
			t.Fatal(err)
		}
		for _, key := range []*seal.Key{nil, sealKey(t, "a")} {
			var corrupt *CorruptError
			if _, err := Check(dir, key); !errors.As(err, &corrupt) {
				t.Errorf("%s, key %v: %v", name, key, err)
			}
		}
	}
}

func BenchmarkSealedCommit(b *testing.B) { benchmarkCommit(b, sealKey(b, "a")) }
