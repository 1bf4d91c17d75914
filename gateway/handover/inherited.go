package handover

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// An inherited is a listening socket that another process opened.
type inherited struct {
	file *os.File
	name Name // the zero value for a foreign socket

	// A foreign socket belongs to the service manager, which opened it for a socket unit.
	// It stays open while no listener uses it.
	foreign bool

	bound net.Addr // the address that the kernel reports
}

// newInherited checks the descriptor.
func newInherited(f *os.File) (*inherited, error) {
	var typ, listening int
	err := control(f, func(fd int) (err error) {
		unix.CloseOnExec(fd)
		if typ, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
			return err
		}
		listening, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		return err
	})
	if err == nil && (typ != unix.SOCK_STREAM || listening == 0) {
		err = errors.New("not a listening stream socket")
	}
	if err != nil {
		return nil, err
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	defer l.Close() // l is a copy
	i := &inherited{file: f, bound: l.Addr()}
	var ours bool
	i.name, ours = ParseName(f.Name())
	i.foreign = !ours
	return i, nil
}

// serves reports whether the socket can serve the address for the owner.
func (i *inherited) serves(network, address, owner string) bool {
	if !i.foreign && i.name.Network == network && i.name.Address == address {
		_, port, err := net.SplitHostPort(address)
		chosen := network == "tcp" && (err != nil || port == "0") // the kernel chose the port
		return !chosen || i.name.Owner == owner
	}
	if !i.foreign && i.name.Owner != owner {
		return false // the owner would lose the port that the kernel chose for it
	}
	switch bound := i.bound.(type) {
	case *net.UnixAddr:
		return i.foreign && network == "unix" && bound.Name == address
	case *net.TCPAddr:
		return network == "tcp" && i.bindsTCP(bound.AddrPort(), address)
	}
	return false
}

// bindsTCP reports whether listening on the address would bind the same addresses. A
// wildcard address of package net covers both families.
func (i *inherited) bindsTCP(bound netip.AddrPort, address string) bool {
	to, err := net.ResolveTCPAddr("tcp", address)
	if err != nil || to.Port != int(bound.Port()) {
		return false
	}
	if len(to.IP) > 0 && !to.IP.IsUnspecified() {
		ip := to.AddrPort().Addr().Unmap()
		return bound.Addr().Unmap() == ip
	}
	if bound.Addr().Is4() {
		return to.IP.To4() != nil && bound.Addr().IsUnspecified()
	}
	only := 1
	control(i.file, func(fd int) (err error) {
		only, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		return err
	})
	return bound.Addr().IsUnspecified() && only == 0
}

// listener returns a listener on a copy of the descriptor.
func (i *inherited) listener() (net.Listener, error) { return net.FileListener(i.file) }

func (i *inherited) String() string {
	return fmt.Sprintf("%s %s", i.bound.Network(), i.bound)
}

// control calls f with the descriptor.
func control(c syscall.Conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	return errors.Join(raw.Control(func(fd uintptr) { inner = f(int(fd)) }), inner)
}
