package bolt

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"go.etcd.io/bbolt"
)

// A database is a bbolt database that can be closed and opened again while it is read.
// Reads in between fail.
type database struct{ now atomic.Pointer[bbolt.DB] }

func (d *database) View(f func(*bbolt.Tx) error) error   { return d.now.Load().View(f) }
func (d *database) Update(f func(*bbolt.Tx) error) error { return d.now.Load().Update(f) }
func (d *database) Path() string                         { return d.now.Load().Path() }
func (d *database) Close() error                         { return d.now.Load().Close() }

// lentName is where Lend copies the database to.
func lentName(path string) string { return path + ".before-upgrade" }

// Lend closes the database for another process, and keeps a copy. The caller must call
// Reclaim, or Give. If it fails, the database is still open.
func (s *Store) Lend() error {
	if err := copyFile(lentName(s.path), s.path); err != nil {
		return errors.Join(fmt.Errorf("cannot copy %s: %w", s.path, err), s.Give())
	}
	// Everything is on disk already, so an error here means nothing.
	_ = s.db.Close()
	_ = s.lock.Close()
	s.lock = nil
	return nil
}

// Reclaim opens the database again, as it was when it was lent: the other process may have
// brought it to a format that this one cannot read. It fails while the other process has
// the directory.
func (s *Store) Reclaim() error {
	lock, err := takeLock(filepath.Join(filepath.Dir(s.path), lockName))
	if err != nil {
		return err
	}
	if err := errors.Join(os.Rename(lentName(s.path), s.path), syncDir(filepath.Dir(s.path))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		lock.Close()
		return err
	}
	if err := s.open(s.path, s.key); err != nil {
		lock.Close()
		return err
	}
	s.lock = lock
	return nil
}

// Give leaves the database to the other process, and removes the copy.
func (s *Store) Give() error {
	if err := os.Remove(lentName(s.path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// copyFile copies a file that does not change meanwhile. The copy is on disk when it returns nil.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
