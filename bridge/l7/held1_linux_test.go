package l7

import (
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
)

// silentUpstream1 is a plaintext HTTP/1.1 upstream that reads the head of each
// request and never answers. Its connections are bare descriptors, so they use no
// memory of this process.
func (w *testbed) silentUpstream1(arrived chan<- struct{}) (address string) {
	ln := listen(w)
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		w.Fatal(err)
	}
	// A small receive buffer and small segments keep the kernel from taking a body.
	if err := raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 536)
	}); err != nil {
		w.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var fds []int
		defer func() {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
		}()
		head := make([]byte, 200)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted := bare(c)
			fds = append(fds, accepted)
			_ = unix.SetsockoptTimeval(accepted, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(testTimeout.Seconds())})
			if n, _ := unix.Read(accepted, head); n > 0 {
				arrived <- struct{}{}
			}
		}
	}()
	w.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

// bare returns a blocking descriptor of c and closes c.
func bare(c net.Conn) (own int) {
	defer c.Close()
	own = -1
	if raw, err := c.(*net.TCPConn).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { own, _ = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	}
	_ = unix.SetNonblock(own, false)
	return own
}

// The same holds for requests to an HTTP/1.1 upstream, each with a connection of its own.
// Their bodies count as parts of their windows.
func TestARequestToHTTP1HoldsLittle(t *testing.T) {
	if alloctest.Race {
		t.Skip("the race detector's memory is in the sum")
	}
	post := []string{":method: POST", ":path: /"}
	for name, request := range map[string]struct {
		heldRequest
		buffers int // most that the body may take, as a part of its window
	}{
		"without a body":           {heldRequest{fields: []string{":method: GET", ":path: /"}, end: true}, 0},
		"whose body has not begun": {heldRequest{fields: post}, 0},
		"with a part of its body":  {heldRequest{fields: post, body: "x"}, 0},
		"that is not asked for":    {heldRequest{fields: append(post, "expect: 100-continue")}, 0},
		"with a few KiB":           {heldRequest{fields: post, body: strings.Repeat("x", 3<<10)}, 0},
		"with a window":            {heldRequest{fields: post, body: strings.Repeat("x", 65535)}, 65535},
	} {
		t.Run(name, func(t *testing.T) {
			w, arrived := newTestbed(t), make(chan struct{}, maxStreams)
			address := w.silentUpstream1(arrived)
			request.upstream = w.newBack(backs.Options{Upstream: plaintext(address), Protocol: backs.HTTP1})
			held := request.heldAt(w, arrived) - request.buffers
			if most := maxStreamMemory/maxStreams + 2<<10; held > most { // the count is a little inexact
				t.Errorf("%d bytes are held for each request besides its window, want at most %d", held, most)
			}
		})
	}
}
