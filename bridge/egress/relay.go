package egress

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A relay connects a kernel socket, which the caller of Dial needs, with a TLS
// connection to the proxy.
type relay struct {
	near  *net.UnixConn // the relay's end of the socket
	far   net.Conn      // the connection to the proxy; owned
	proxy *Proxy
}

// relayed returns a socket whose bytes go through conn, which it owns from then on.
func (p *Proxy) relayed(conn net.Conn) (net.Conn, error) {
	ours, near, err := socketPair()
	if err != nil {
		return nil, err
	}
	r := relay{near, conn, p}
	go r.run()
	return ours, nil
}

// run relays until both directions have ended, or the caller has closed its end.
func (r relay) run() {
	var directions sync.WaitGroup
	carry := func(to, from net.Conn, then func()) {
		directions.Go(func() {
			defer r.recover()
			if _, err := io.Copy(writerOnly{to}, readerOnly{from}); err != nil || closeWrite(to) != nil {
				r.close()
				return
			}
			then()
		})
	}
	carry(r.far, r.near, r.awaitClose)
	carry(r.near, r.far, func() {})
	directions.Wait()
	r.close()
}

func (r relay) close() {
	r.near.Close()
	r.far.Close()
}

// recover ends the relay after a panic, so that its peers do not wait forever.
func (r relay) recover() {
	value := recover()
	if value == nil {
		return
	}
	r.close()
	if r.proxy.Logger != nil {
		r.proxy.Logger.Error("panic while relaying to an egress proxy", "proxy", r.proxy.Address, "panic", value, "stack", string(debug.Stack()))
	}
}

// awaitClose waits until the caller has closed its end completely, so that it no
// longer reads the proxy's bytes, or until the relay ends. A half-close does not
// count.
func (r relay) awaitClose() {
	defer r.close()
	raw, err := r.near.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool { // fails once the relay has ended
		poll := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(poll, 0)
		return err != nil && !errors.Is(err, unix.EINTR) || n > 0 && poll[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
}

// closeWrite closes the writing half of a connection.
func closeWrite(conn net.Conn) error {
	return conn.(interface{ CloseWrite() error }).CloseWrite()
}

// writerOnly and readerOnly limit io.Copy to plain reads and writes, because splice(2)
// does not apply to TLS.
type writerOnly struct{ io.Writer }
type readerOnly struct{ io.Reader }

// socketPair returns both ends of a socket.
func socketPair() (a, b *net.UnixConn, err error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	a, errA := unixConn(fds[0])
	b, errB := unixConn(fds[1])
	if err := errors.Join(errA, errB); err != nil {
		for _, c := range []*net.UnixConn{a, b} {
			if c != nil {
				c.Close()
			}
		}
		return nil, nil, err
	}
	return a, b, nil
}

// unixConn returns a connection that owns fd.
func unixConn(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "egress")
	defer file.Close() // FileConn duplicates it
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}
