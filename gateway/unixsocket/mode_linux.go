package unixsocket

import "syscall"

// ownerOnly makes bind create the file with mode 0600: Linux uses the mode of the
// socket's inode, less the umask.
func ownerOnly(fd uintptr) error { return syscall.Fchmod(int(fd), 0o600) }
