package fileroot

import (
	"io/fs"
	"syscall"
)

// stat is os.Lstat without its allocations: polls of many files call it.
func stat(name string) look {
	var st syscall.Stat_t
	err := syscall.Lstat(name, &st)
	for err == syscall.EINTR { // some FUSE file systems return EINTR
		err = syscall.Lstat(name, &st)
	}
	if err != nil {
		return look{err: err}
	}
	mode := fs.FileMode(st.Mode & 0o7777)
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
	case syscall.S_IFDIR:
		mode |= fs.ModeDir
	case syscall.S_IFLNK:
		mode |= fs.ModeSymlink
	default:
		mode |= fs.ModeIrregular
	}
	return look{mode: mode, device: uint64(st.Dev), inode: st.Ino, size: st.Size, modified: st.Mtim.Nano(), changed: st.Ctim.Nano()}
}
