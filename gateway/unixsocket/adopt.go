package unixsocket

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"
)

// Adopt returns a listener on a socket that another process bound to path. file is the
// result of File in that process. If it is empty, the socket and its file belong to the
// service manager: Adopt checks only their mode, and Close keeps the file.
//
// Adopt closes l if it fails.
func Adopt(l *net.UnixListener, path, file string, o Options) (_ *Listener, err error) {
	defer func() {
		if err != nil {
			l.Close()
			err = fmt.Errorf("unix socket %s: %w", path, err)
		}
	}()
	l.SetUnlinkOnClose(false)
	now, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, cause(err)
	case now.Mode().Type() != fs.ModeSocket:
		return nil, errors.New("the path exists and is not a socket")
	case file != "" && fileID(now) != file:
		return nil, errors.New("another file is in its place")
	}
	adopted := &Listener{UnixListener: l, path: path, made: now, foreign: file == ""}
	adopted.KeepFile()
	return adopted, adopted.Permit(o)
}

// File identifies the file of the socket. A replacement file has a different identity.
func (l *Listener) File() string { return fileID(l.made) }

func fileID(info os.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "unknown"
	}
	return strconv.FormatUint(uint64(st.Dev), 16) + "." + strconv.FormatUint(st.Ino, 10)
}

// KeepFile makes Close leave the file, for the next process that serves the socket.
func (l *Listener) KeepFile() { l.keep.Store(true) }

// RemoveFile makes Close remove the file again, unless it belongs to the service manager.
func (l *Listener) RemoveFile() { l.keep.Store(l.foreign) }

// checkMode fails if the file admits users that o does not.
func (l *Listener) checkMode(o Options) error {
	info, err := os.Lstat(l.path)
	if err != nil {
		return err
	}
	group, err := lookUpGroup(o.Group)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && group != noGroup && int(st.Gid) != group {
		return fmt.Errorf("the service manager gives it the group %d, not %d: set SocketGroup=%s in the socket unit", st.Gid, group, o.Group)
	}
	most := cmp.Or(o.Mode, 0o600)
	if mode := info.Mode().Perm(); mode&^most != 0 {
		return fmt.Errorf("the service manager gives it the mode %04o, wider than %04o: set SocketMode=%04o in the socket unit", mode, most, most)
	}
	return nil
}
