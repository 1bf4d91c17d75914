package splice

import (
	"net"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// reuse opens an epoll set that watches fd and has the same number as l's closed set,
// and returns it.
func reuse(t *testing.T, number, fd int) *os.File {
	t.Helper()
	for other := -1; other != number; { // the kernel assigns the lowest free number
		var err error
		if other, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		if other > number {
			unix.Close(other)
			t.Skip("something else has taken the number")
		}
		if other < number {
			t.Cleanup(func() { unix.Close(other) })
		}
	}
	set := os.NewFile(uintptr(number), "another epoll set")
	t.Cleanup(func() { set.Close() })
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT, Fd: 1000}
	if err := unix.EpollCtl(number, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		t.Fatal(err)
	}
	return set
}

func numberOf(t *testing.T, c syscall.Conn) (number int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { number = int(fd) }); err != nil {
		t.Fatal(err)
	}
	return number
}

// A loop that is closed while it has a turn to run does not wait for events again,
// because the number of its epoll set may then belong to another file.
func TestAClosedLoopDoesNotWaitAgain(t *testing.T) {
	e := newEngine()
	l, err := newLoop(e)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l.wakeFD)
	client, clientFar := tcpPair(t)
	upstream, upstreamFar := tcpPair(t)
	defer clientFar.Close()
	defer upstreamFar.Close()
	s := e.newSplice(client, upstream, Options{Idle: 1 << 40, Linger: 1 << 40})
	defer s.Cut(Shutdown, nil)
	l.runnable = append(l.runnable, s)

	number := numberOf(t, l.file)
	l.file.Close()
	reuse(t, number, numberOf(t, clientFar.(*net.TCPConn)))
	l.run() // an event of the other set would be mistaken for slot 1000
	if len(l.runnable) != 1 {
		t.Error("a turn was run after the loop was closed")
	}
}

// A parked connection that outlives the Engine does not change another epoll
// set.
func TestAParkedConnectionOutlivesTheEngine(t *testing.T) {
	e := newEngine()
	l, err := newLoop(e)
	if err != nil {
		t.Fatal(err)
	}
	e.loops = append(e.loops, l)
	go l.run()
	near, far := tcpPair(t)
	defer near.Close()
	defer far.Close()
	raw, err := far.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	p := e.Parked(raw, func() {})
	if err := p.Park(); err != nil {
		t.Fatal(err)
	}
	number := numberOf(t, l.file)
	e.Close()
	reuse(t, number, numberOf(t, far.(*net.TCPConn)))
	p.Leave()
	if n := epollNow(number, make([]unix.EpollEvent, 1)); n != 1 {
		t.Errorf("the other set reports %d events, want 1: its entry was removed", n)
	}
	if p.Park() == nil {
		t.Error("a connection can be parked after the Engine was closed")
	}
}
