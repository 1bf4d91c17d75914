package socket

import (
	"net"
	"sync/atomic"
	"syscall"
)

// A Direct writes to a kernel socket with less overhead than the connection's own
// Write. One goroutine at a time may write.
type Direct struct {
	conn   net.Conn
	raw    syscall.RawConn // nil: not a kernel socket
	try    func(fd uintptr) bool
	p      []byte
	n      int
	err    error
	noWait bool // return instead of waiting

	waiting bool         // the current write has had to wait
	written atomic.Int64 // bytes that the kernel accepted
	stall   stallTimer
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

// Write implements net.Conn.
func (d *Direct) Write(p []byte) (int, error) {
	if d.raw == nil || len(p) == 0 {
		return d.conn.Write(p)
	}
	return d.write(p, false)
}

// TryWrite writes as much as possible without waiting. A short write is not an error.
// It writes nothing to a connection that is not a kernel socket.
func (d *Direct) TryWrite(p []byte) (int, error) {
	if d.raw == nil || len(p) == 0 {
		return 0, nil
	}
	return d.write(p, true)
}

func (d *Direct) write(p []byte, noWait bool) (int, error) {
	d.p, d.n, d.err, d.noWait = p, 0, nil, noWait
	err := d.raw.Write(d.try)
	d.p = nil
	if err == nil {
		err = d.err
	}
	if d.waiting {
		d.waiting = false
		err = d.waited(err)
	}
	return d.n, err
}

// tryWrite writes as much as possible without waiting. The runtime calls it again when
// the socket may be writable.
func (d *Direct) tryWrite(fd uintptr) bool {
	for d.n < len(d.p) {
		n, err := WriteNow(int(fd), d.p[d.n:])
		d.n += n
		d.written.Add(int64(n))
		if err == syscall.EAGAIN {
			if !d.noWait && !d.waiting {
				d.waiting = true
				d.wait()
			}
			return d.noWait
		}
		if err != nil {
			d.err = err
			return true
		}
	}
	return true
}
