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

// lentName returns the path of the copy that Lend makes.
func lentName(path string) string { return path + ".before-upgrade" }

// Lend closes the database so that another process can open it, and keeps a copy. The
// caller must then call Reclaim or Give. If Lend fails, the database is still open.
func (s *Store) Lend() error {
	if err := copyFile(lentName(s.path), s.path); err != nil {
		return errors.Join(fmt.Errorf("cannot copy %s: %w", s.path, err), s.Give())
	}
	// All data is on disk already, so an error of Close does not matter.
	_ = s.db.Close()
	_ = s.lock.Close()
	s.lock = nil
	return nil
}

// Reclaim restores the copy that Lend made and opens it, because the other process may
// have converted the database to a format that this process cannot read. It fails while
// the other process holds the directory.
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

// copyFile copies a file that no process writes to. When it returns nil, the copy is on
// disk.
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
