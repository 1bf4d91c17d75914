package admin

import (
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"unsafe"
)

// dialAs connects to a unix socket as another user with the groups. The first group is
// the main one. It skips the test unless it runs as root.
func dialAs(t *testing.T, socket string, uid int, gids ...int) net.Conn {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can connect as another user")
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// The credentials apply only to this thread, which ends with the goroutine
		// because it stays locked.
		runtime.LockOSThread()
		groups := make([]uint32, len(gids))
		for i, gid := range gids {
			groups[i] = uint32(gid)
		}
		set := func(call uintptr, a, b, c int) {
			if _, _, errno := syscall.RawSyscall(call, uintptr(a), uintptr(b), uintptr(c)); errno != 0 {
				panic(errno)
			}
		}
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
			panic(errno)
		}
		set(syscall.SYS_SETRESGID, gids[0], gids[0], gids[0])
		set(syscall.SYS_SETRESUID, uid, uid, uid)
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err == nil {
			err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket})
		}
		if err != nil {
			done <- result{err: err}
			return
		}
		f := os.NewFile(uintptr(fd), socket)
		defer f.Close()
		conn, err := net.FileConn(f)
		done <- result{conn, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.conn
}
