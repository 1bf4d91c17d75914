package socket

import (
	"net"
	"syscall"
)

// A Direct writes to a connection with less ado than the connection's own
// Write, if it is a kernel socket. One goroutine at a time may write.
type Direct struct {
	conn net.Conn
	raw  syscall.RawConn // nil: not a kernel socket
	try  func(fd uintptr) bool
	p    []byte
	n    int
	err  error
}

// NewDirect returns a Direct that writes to conn.
func NewDirect(conn net.Conn) *Direct {
	d := &Direct{conn: conn}
	d.try = d.tryWrite
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			d.raw = raw
		}
	}
	return d
}

// Write is the connection's.
func (d *Direct) Write(p []byte) (int, error) {
	if d.raw == nil || len(p) == 0 {
		return d.conn.Write(p)
	}
	d.p, d.n, d.err = p, 0, nil
	err := d.raw.Write(d.try)
	d.p = nil
	if err == nil {
		err = d.err
	}
	return d.n, err
}

// tryWrite writes as much as goes without waiting. The runtime calls it again
// when there may be room for more.
func (d *Direct) tryWrite(fd uintptr) bool {
	for d.n < len(d.p) {
		n, err := WriteNow(int(fd), d.p[d.n:])
		d.n += n
		if err == syscall.EAGAIN {
			return false
		}
		if err != nil {
			d.err = err
			return true
		}
	}
	return true
}
