package unixsocket

import "syscall"

// ownerOnly has bind create the file with mode 0600: Linux takes the mode of the
// socket's own inode, less the umask.
func ownerOnly(fd uintptr) error { return syscall.Fchmod(int(fd), 0o600) }
