package bolt

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
)

// A Summary describes the content of a database.
type Summary struct {
	Revision  int64
	Resources int
	Records   int  // stored revisions
	Sealed    bool // the database is sealed
	Opened    bool // the records were decoded, because the database is not sealed or the key was given
}

// Backup returns a copy of the database as of one revision. It holds all data, including
// private keys. Sealed records stay sealed. The caller closes it. Backup may be called
// concurrently with every other method except Close.
//
// The copy is an unnamed file, because a read transaction that waits for a slow reader
// would block commits.
func (s *Store) Backup() (io.ReadCloser, error) {
	f, err := os.CreateTemp(filepath.Dir(s.db.Path()), ".backup-*")
	if err != nil {
		return nil, err
	}
	if err = os.Remove(f.Name()); err == nil {
		err = s.db.View(func(tx *bbolt.Tx) error {
			_, err := tx.WriteTo(f)
			return err
		})
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Restore creates the database of a data directory from a backup, and returns a summary.
// With key it checks every value of a sealed backup; without key, only checksums. The
// database gets a new ID, so that watchers of the original start over. Restore fails if
// the directory has a database, and creates none if the backup is damaged.
func Restore(dir string, backup io.Reader, key *seal.Key) (s Summary, err error) {
	if err := prepareDir(dir); err != nil {
		return Summary{}, err
	}
	lock, err := takeLock(filepath.Join(dir, lockName))
	if err != nil {
		return Summary{}, err
	}
	defer lock.Close()
	path := filepath.Join(dir, fileName)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return Summary{}, cmp.Or(err, fmt.Errorf("%s exists: move it away first, or restore to another directory", path))
	}
	err = place(path, func(fresh string) (err error) {
		s, err = restoreAs(fresh, backup, key)
		return err
	}, nil)
	if err != nil {
		return Summary{}, err
	}
	return s, nil
}

// restoreAs writes a backup to a new file and checks it.
func restoreAs(path string, backup io.Reader, key *seal.Key) (Summary, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Summary{}, err
	}
	size, err := io.Copy(f, backup)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return Summary{}, fmt.Errorf("copy the backup to %s: %w", path, err)
	}
	s, err := summarize(path, key)
	if damaged, ok := errors.AsType[*CorruptError](err); ok {
		return Summary{}, fmt.Errorf("the backup is damaged or incomplete: %w", damaged.Err)
	}
	if mismatch, ok := errors.AsType[*SealError](err); ok {
		return Summary{}, &SealError{"the backup", mismatch.Problem}
	}
	if err != nil {
		return Summary{}, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return Summary{}, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		if tx.Size() != size {
			return fmt.Errorf("the backup is incomplete: it has %d bytes of %d", size, tx.Size())
		}
		return tx.Bucket(metaBucket).Put(instanceKey, []byte(rand.Text()))
	})
	return s, errors.Join(err, db.Close())
}

// Check reads the whole database of a data directory, and returns a summary. It changes
// nothing. With key it checks every value of a sealed database; without key, only
// checksums. It returns a *LockedError if a process holds the directory, and a
// *CorruptError if the database is damaged.
func Check(dir string, key *seal.Key) (Summary, error) {
	path := filepath.Join(dir, fileName)
	if _, err := os.Stat(path); err != nil {
		return Summary{}, err
	}
	lock, err := takeLock(filepath.Join(dir, lockName))
	if err != nil {
		return Summary{}, err
	}
	defer lock.Close()
	return summarize(path, key)
}

// summarize reads a whole database and returns a summary.
func summarize(path string, key *seal.Key) (Summary, error) {
	read, err := readAll(path, key)
	if mismatch, ok := errors.AsType[*SealError](err); ok && mismatch.Problem == KeyMissing {
		return inspect(path)
	}
	if err != nil {
		return Summary{}, err
	}
	return read.summary(), nil
}

func (r *reading) summary() Summary {
	return Summary{Revision: r.revision, Resources: len(r.state.All()), Records: len(r.records), Sealed: r.sealed(), Opened: true}
}
