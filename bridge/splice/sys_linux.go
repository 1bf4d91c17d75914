package splice

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls here never block, so the scheduler need not be told of them, which
// costs as much as a small read.

func readNow(fd int, p []byte) (int, error)  { return now(syscall.SYS_READ, fd, p) }
func writeNow(fd int, p []byte) (int, error) { return now(syscall.SYS_WRITE, fd, p) }

// now reads or writes without waiting. P must not be empty.
func now(call uintptr, fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
			continue
		}
		return 0, errno
	}
}

// epollNow returns how many events there are, or -1 if that fails.
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

// tcpClose is TCP_CLOSE of the kernel's enum, where a reset leaves a socket.
const tcpClose = 7

// wasReset reports whether a TCP connection is over although its own stream has
// not been ended: then the peer reset it. The kernel tells of a reset only once,
// so if a write learnt of it, a read sees what looks like a clean end.
func wasReset(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == tcpClose
}
