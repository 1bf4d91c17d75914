package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// maxSocketPath is how long the path of a socket may be on every system:
// sun_path has 104 bytes on some and 108 on Linux, with a NUL at the end.
const maxSocketPath = 103

// ListenUnix listens on a unix socket at path with mode 0600. Missing parent
// directories are made, with mode 0700. The socket of a process that is gone
// is taken over; that of a live one is an error, and so is anything at path
// that is no socket: it is left as it is.
//
// The socket is never open to others, not even for an instant: it is bound in
// a new directory that only we can enter, given its mode there, and then
// linked to path. (Setting the umask would affect files that the rest of the
// process makes meanwhile.) Linking also fails, instead of replacing, if
// another process was faster.
//
// Close removes the socket if path still is the one that was made.
func ListenUnix(path string) (net.Listener, error) {
	lis, err := listenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	return lis, nil
}

func listenUnix(path string) (_ net.Listener, err error) {
	if path == "" {
		return nil, errors.New("the path is empty")
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(dir, ".s")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	bound := filepath.Join(private, "s")
	if n := max(len(path), len(bound)); n > maxSocketPath {
		return nil, fmt.Errorf("the path is too long by %d bytes for a unix socket: choose a shorter one", n-maxSocketPath)
	}

	inner, err := net.ListenUnix("unix", &net.UnixAddr{Name: bound, Net: "unix"})
	if err != nil {
		return nil, err
	}
	inner.SetUnlinkOnClose(false)
	defer func() {
		if err != nil {
			inner.Close()
		}
	}()
	if err := os.Chmod(bound, 0o600); err != nil {
		return nil, err
	}
	made, err := os.Lstat(bound)
	if err != nil {
		return nil, err
	}
	err = publish(bound, path)
	if errors.Is(err, fs.ErrExist) {
		if err := clearStale(path, filepath.Join(private, "old")); err != nil {
			return nil, err
		}
		err = publish(bound, path)
	}
	if err != nil {
		return nil, err
	}
	return &unixListener{UnixListener: inner, path: path, made: made}, nil
}

// publish makes the socket at from appear at path, where nothing may be.
func publish(from, path string) error {
	err := os.Link(from, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// A file system without hard links. Rename would replace what is there.
	if _, statErr := os.Lstat(path); statErr == nil {
		return fs.ErrExist
	}
	return os.Rename(from, path)
}

// clearStale removes the socket at path if nobody listens on it. aside is a
// free path in the same file system.
func clearStale(path, aside string) error {
	found, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case found.Mode().Type() != fs.ModeSocket:
		return errors.New("there is something else than a socket: remove it or choose another path")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return errors.New("another process is serving there: stop it or choose another path")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		// Such as a full backlog: its owner lives.
		return fmt.Errorf("there is a socket, and whether a process serves it cannot be told: %w", err)
	}
	// Between the dial and now another process may have taken the path over.
	// So it is moved first and looked at then.
	if err := os.Rename(path, aside); err != nil {
		return err
	}
	moved, err := os.Lstat(aside)
	if err == nil && !os.SameFile(found, moved) {
		return errors.Join(errors.New("another process is taking the socket over at the same time"), publish(aside, path))
	}
	return err
}

// A unixListener reports and removes the path that its socket was linked to.
type unixListener struct {
	*net.UnixListener
	path   string
	made   os.FileInfo
	remove sync.Once
}

func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *unixListener) Close() error {
	l.remove.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(l.made, now) {
			os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}
