package bolt

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A LockedError says that another process holds the data directory.
type LockedError struct {
	Path string // the path of the lock file
	PID  int    // the PID of the holder; 0 if unknown
}

func (e *LockedError) Error() string {
	holder := "another process"
	if e.PID != 0 {
		holder = fmt.Sprintf("another process (pid %d)", e.PID)
	}
	return fmt.Sprintf("%s holds this data directory (%s): stop it, or give this one another --data-dir", holder, e.Path)
}

// prepareDir creates the directory if it is missing, and rejects a directory that other
// users can enter.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("data directory: %s is not a directory", dir)
	}
	if err := checkMode(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w; or, where the directory is a mounted volume, let the gateway create its own directory in it: --data-dir %s",
			err, filepath.Join(dir, "drawbridge"))
	}
	return nil
}

// checkMode rejects a file that other users can access or that another user owns,
// because it holds private keys.
func checkMode(path string, most fs.FileMode) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&^most != 0 {
		return fmt.Errorf("%s has mode %04o, and private keys are kept there: it must not be wider than %04o (chmod %04o %s)", path, mode, most, most, path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, and private keys are kept there: it must belong to user %d, which runs this process", path, st.Uid, os.Geteuid())
	}
	return nil
}

// A dirLock is the lock of a data directory. It ends with Close, or when the process dies.
type dirLock struct{ file *os.File }

// Close releases the lock. Closing the file alone does not release it: a process that
// is being started holds all files of this one until it runs its program.
func (l *dirLock) Close() error {
	return errors.Join(unix.Flock(int(l.file.Fd()), unix.LOCK_UN), l.file.Close())
}

// takeLock locks a file, which it creates if it is missing.
func takeLock(path string) (*dirLock, error) {
	// Following a symlink would overwrite its target.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		defer f.Close()
		text, _ := io.ReadAll(io.LimitReader(f, 32))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text))) // 0 if unreadable
		return nil, &LockedError{path, pid}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// The pid is only for the error message of a second process.
	err = errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n"))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &dirLock{f}, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// place creates a file with write under another name and then renames it to path, so that
// path is always a complete file. If place fails before the rename, path is unchanged. It
// calls renamed, unless nil, between the rename and its sync.
func place(path string, write func(fresh string) error, renamed func()) error {
	if err := removeStale(path); err != nil {
		return err
	}
	fresh := freshName(path)
	if err := write(fresh); err != nil {
		return errors.Join(err, removeStale(path))
	}
	if err := os.Rename(fresh, path); err != nil {
		return errors.Join(err, removeStale(path))
	}
	if renamed != nil {
		renamed()
	}
	return syncDir(filepath.Dir(path))
}

func freshName(path string) string { return path + ".new" }

// removeStale removes the file that an interrupted call of place left behind.
func removeStale(path string) error {
	if err := os.Remove(freshName(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
