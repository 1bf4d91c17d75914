package splice

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// epollNow returns the number of ready events without waiting, or -1 on failure. It
// bypasses the scheduler because it never blocks.
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
