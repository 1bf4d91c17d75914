package socket

import (
	"net"
	"sync/atomic"
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
	once bool // not to wait

	waits    bool         // the write under way has to wait
	written  atomic.Int64 // bytes that the kernel took
	patience patience
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
	return d.write(p, false)
}

// TryWrite writes as much as goes without waiting: nothing to what is no kernel
// socket. That it is not all is no error.
func (d *Direct) TryWrite(p []byte) (int, error) {
	if d.raw == nil || len(p) == 0 {
		return 0, nil
	}
	return d.write(p, true)
}

func (d *Direct) write(p []byte, once bool) (int, error) {
	d.p, d.n, d.err, d.once = p, 0, nil, once
	err := d.raw.Write(d.try)
	d.p = nil
	if err == nil {
		err = d.err
	}
	if d.waits {
		d.waits = false
		err = d.waited(err)
	}
	return d.n, err
}

// tryWrite writes as much as goes without waiting. The runtime calls it again
// when there may be room for more.
func (d *Direct) tryWrite(fd uintptr) bool {
	for d.n < len(d.p) {
		n, err := WriteNow(int(fd), d.p[d.n:])
		d.n += n
		d.written.Add(int64(n))
		if err == syscall.EAGAIN {
			if !d.once && !d.waits {
				d.waits = true
				d.wait()
			}
			return d.once
		}
		if err != nil {
			d.err = err
			return true
		}
	}
	return true
}
