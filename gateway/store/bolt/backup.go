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

// A Summary says what a database holds.
type Summary struct {
	Revision  int64
	Resources int
	Records   int  // revisions that are stored
	Sealed    bool // by a key
	Opened    bool // its records were decoded: it is not sealed, or the key was given
}

// Backup returns a copy of the database as of one revision. It holds everything, private
// keys included; what is sealed stays sealed. The caller closes it. It may be called concurrently with every other
// method but Close.
//
// The copy is in a file without a name, because a read transaction that waits for a slow
// reader would block commits.
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

// Restore makes the database of a data directory from a backup, and says what it holds.
// key opens a sealed backup to check it whole; without it only checksums are checked.
// The database gets an ID of its own, so that watchers of the original start over. It
// fails if the directory has a database, and leaves none if the backup is damaged.
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

// restoreAs writes a backup to a new file, and checks it.
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

// Check reads all of the database of a data directory, and says what it holds. It changes
// nothing. key opens a sealed database; without it only checksums are checked. A directory
// that a process holds is a *LockedError, a damaged database a *CorruptError.
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

// summarize reads all of a database, and says what it holds.
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
