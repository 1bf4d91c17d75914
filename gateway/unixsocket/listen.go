// Package unixsocket listens on unix sockets with an exact owner, group and mode.
//
// A Listener owns its socket file and removes it on Close, unless another process has
// replaced it.
package unixsocket

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxSocketPath bounds the path of a socket so that it works on every system. sun_path
// has 108 bytes on Linux and 104 on some systems, including a NUL at the end.
const maxSocketPath = 103

// Options say which users may connect. The zero value allows only the user of the
// process.
type Options struct {
	// Mode is the permissions of the socket's file; connecting needs the right to
	// write. 0: 0600.
	Mode fs.FileMode

	// Group owns the file, by its name or number. The process must be a member of
	// it, or privileged. Empty: the group that the system gives new files.
	Group string
}

// Listen listens on a unix socket at path. It creates missing parent directories with
// mode 0700. It replaces the socket of a dead process. It fails, and changes nothing, if
// a live process serves the socket or if the file at path is not a socket.
//
// The socket is never open to other users, not even briefly: it is bound in a new
// private directory, gets its mode and group there, and is then linked to path. (A
// umask would affect files that other goroutines create at the same time.) If
// another process creates path first, linking fails and does not replace its socket.
//
// Close removes the socket file, unless another file has replaced it or KeepFile was
// called.
func Listen(path string, o Options) (*Listener, error) {
	l, err := listen(path, o)
	if err != nil {
		return nil, fmt.Errorf("unix socket %s: %w", path, err)
	}
	return l, nil
}

func listen(path string, o Options) (_ *Listener, err error) {
	if path == "" {
		return nil, errors.New("the path is empty")
	}
	group, err := lookUpGroup(o.Group)
	if err != nil {
		return nil, err
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
	if err := permit(bound, o.Mode, group); err != nil {
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
	return &Listener{UnixListener: inner, path: path, made: made}, nil
}

// publish links the socket at from to path, which must not exist.
func publish(from, path string) error {
	err := os.Link(from, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// The file system has no hard links. Rename would replace an existing file.
	if _, statErr := os.Lstat(path); statErr == nil {
		return fs.ErrExist
	}
	return os.Rename(from, path)
}

// clearStale removes the socket at path if no process listens on it. temporary is an unused
// path in the same file system.
func clearStale(path, temporary string) error {
	found, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case found.Mode().Type() != fs.ModeSocket:
		return errors.New("the path exists and is not a socket: remove it or choose another path")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return errors.New("another process serves this socket: stop it or choose another path")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		// For example, the backlog is full, so the owner is alive.
		return fmt.Errorf("a socket exists, and whether a process serves it is unknown: %w", err)
	}
	// Another process may have replaced the path since the dial, so move the file first
	// and then check it.
	if err := os.Rename(path, temporary); err != nil {
		return err
	}
	moved, err := os.Lstat(temporary)
	if err == nil && !os.SameFile(found, moved) {
		return errors.Join(errors.New("another process is taking the socket over at the same time"), publish(temporary, path))
	}
	return err
}

// A Listener reports and removes the path that its socket was linked to.
type Listener struct {
	*net.UnixListener
	path    string
	made    os.FileInfo
	remove  sync.Once
	keep    atomic.Bool // Close leaves the file
	foreign bool        // the file belongs to the service manager
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.remove.Do(func() {
		if !l.keep.Load() && l.ownsFile() {
			os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}

// ownsFile reports whether the file at path is still this socket.
func (l *Listener) ownsFile() bool {
	now, err := os.Lstat(l.path)
	return err == nil && os.SameFile(l.made, now)
}

// Permit changes which users may connect from now on.
func (l *Listener) Permit(o Options) error {
	group, err := lookUpGroup(o.Group)
	if err != nil {
		return err
	}
	if !l.ownsFile() {
		return fmt.Errorf("unix socket %s: another file is in its place", l.path)
	}
	if l.foreign {
		return l.checkMode(o)
	}
	return permit(l.path, o.Mode, group)
}

// CheckGroup returns an error if the group, a name or number, does not exist on
// this machine. The group "" is valid.
func CheckGroup(name string) error {
	_, err := lookUpGroup(name)
	return err
}

// noGroup keeps a file's group.
const noGroup = -1

func lookUpGroup(name string) (int, error) {
	if name == "" {
		return noGroup, nil
	}
	if id, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(id), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return noGroup, fmt.Errorf("group %q does not exist: use the name or number of a group on this machine", name)
	}
	return strconv.Atoi(g.Gid)
}

// permit sets the group before the mode, so that the mode never applies to another
// group.
func permit(path string, mode fs.FileMode, group int) error {
	if err := os.Lchown(path, -1, group); err != nil && group != noGroup {
		return fmt.Errorf("group %d cannot own the socket: %w; add the user that runs the gateway to that group", group, cause(err))
	}
	return os.Chmod(path, cmp.Or(mode, 0o600))
}

// cause returns the kernel's error.
func cause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}
