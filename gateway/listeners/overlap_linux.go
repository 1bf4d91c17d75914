package listeners

import (
	"errors"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// An overlapSocket is a socket bound to an address that overlaps the addresses of sockets which
// are about to be closed. Until listen is called, it does not listen, and the old
// sockets accept every client.
//
// SO_REUSEPORT allows both binds. It is set only as long as needed, because a second
// gateway that binds the same address must fail instead of sharing the clients.
type overlapSocket struct {
	*net.TCPListener
	going []*net.TCPListener
}

func bindOverlapping(address string, going []*net.TCPListener) (_ *overlapSocket, err error) {
	b := &overlapSocket{going: going}
	if err := b.share(true); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.share(false)) }()
	fd, err := bindShared(address, protocolOf(going[0]))
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), address)
	defer file.Close() // FileListener duplicates the descriptor
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	b.TCPListener = l.(*net.TCPListener)
	return b, nil
}

// bindShared returns a socket that is bound to the address with SO_REUSEPORT.
func bindShared(address string, protocol int) (fd int, err error) {
	to, err := net.ResolveTCPAddr("tcp", address) // the address has an IP address, so there is no DNS lookup
	if err != nil {
		return -1, err
	}
	var ip netip.Addr // an invalid ip means every address; package net treats 0.0.0.0 in the same way
	if wildcard := len(to.IP) == 0 || to.IP.IsUnspecified(); !wildcard {
		ip = to.AddrPort().Addr().Unmap()
	}
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: to.Port})
	switch {
	case ip.Is4():
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: to.Port, Addr: ip.As4()}
	case ip.Is6():
		zone, _ := net.InterfaceByName(ip.Zone())
		at := &unix.SockaddrInet6{Port: to.Port, Addr: ip.As16()}
		if zone != nil {
			at.ZoneId = uint32(zone.Index)
		}
		sa = at
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil && !ip.IsValid() { // this machine has no IPv6
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: to.Port}
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	}
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
	)
	if family == unix.AF_INET6 {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0))
	}
	if err = errors.Join(err, unix.Bind(fd, sa)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// protocolOf returns the protocol of l: TCP, or MPTCP with fallback to TCP.
func protocolOf(l *net.TCPListener) int {
	protocol := unix.IPPROTO_TCP
	control(l, func(fd int) error {
		p, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if err == nil {
			protocol = p
		}
		return err
	})
	return protocol
}

// listen starts to accept clients. The old sockets still listen.
func (b *overlapSocket) listen() error {
	return errors.Join(b.share(true), control(b.TCPListener, func(fd int) error { return unix.Listen(fd, maxBacklog) }))
}

// unshare clears SO_REUSEPORT once the old sockets are closed.
func (b *overlapSocket) unshare() { setShared(b.TCPListener, false) }

func (b *overlapSocket) share(on bool) error {
	var errs []error
	for _, l := range b.going {
		errs = append(errs, setShared(l, on))
	}
	return errors.Join(errs...)
}

func setShared(l *net.TCPListener, on bool) error {
	v := 0
	if on {
		v = 1
	}
	return control(l, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, v) })
}

func control(l *net.TCPListener, f func(fd int) error) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) { err = f(int(fd)) }), err)
}

// maxBacklog requests the largest backlog: the kernel uses the minimum of this and
// net.core.somaxconn.
const maxBacklog = 1<<16 - 1
