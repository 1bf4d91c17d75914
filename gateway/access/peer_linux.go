package access

import (
	"net"
	"syscall"
	"unsafe"
)

// soPeerGroups is SO_PEERGROUPS (Linux 4.13, socket(7)).
const soPeerGroups = 59

// PeerOf returns the user and the groups of the process that connected to a unix socket,
// as of the time of the connection. ok is false if the kernel does not report them.
func PeerOf(conn *net.UnixConn) (uid uint32, gids []uint32, ok bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, nil, false
	}
	err = raw.Control(func(fd uintptr) {
		var cred *syscall.Ucred
		if cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err != nil {
			return
		}
		// A kernel without SO_PEERGROUPS still names the main group.
		uid, gids, ok = cred.Uid, append([]uint32{cred.Gid}, peerGroups(fd)...), true
	})
	return uid, gids, ok && err == nil
}

// peerGroups returns the supplementary groups, or nil if the process has none or the
// kernel does not report them.
func peerGroups(fd uintptr) []uint32 {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.SOL_SOCKET, soPeerGroups,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch need := int(size / 4); {
		case errno == 0:
			return groups[:need]
		case errno == syscall.ERANGE && need > len(groups): // size is the required size
			groups = make([]uint32, need)
		default:
			return nil
		}
	}
}
