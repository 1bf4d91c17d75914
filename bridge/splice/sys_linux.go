package splice

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// epollNow returns how many events there are, or -1 if that fails. It does not
// wait, so the scheduler need not be told of it.
func epollNow(epoll int, events []unix.EpollEvent) int {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll),
			uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case syscall.EINTR:
			continue
		}
		return -1
	}
}

// room returns how much the kernel can hold of what is sent to the side, 0 if
// that is not known.
func (x *side) room() int {
	var mem [9]uint32 // SK_MEMINFO_*
	size := uint32(unsafe.Sizeof(mem))
	_, _, errno := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, uintptr(x.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&mem)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 || x.unix {
		return 0
	}
	return int(mem[unix.SK_MEMINFO_SNDBUF]) - int(mem[unix.SK_MEMINFO_WMEM_QUEUED])
}
