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
