package socket

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Room returns how many more bytes the send buffer of a TCP socket can hold, or 0 if
// unknown. The result has no meaning for other sockets.
func Room(fd int) int {
	var mem [9]uint32 // SK_MEMINFO_*
	size := uint32(unsafe.Sizeof(mem))
	_, _, errno := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&mem)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	return int(mem[unix.SK_MEMINFO_SNDBUF]) - int(mem[unix.SK_MEMINFO_WMEM_QUEUED])
}
