// Package faulttest provides connections that fail, for tests: a wrapper whose reads and
// writes fail at a chosen position, and connections in memory, which can be used under
// testing/synctest.
//
// The code that creates a connection owns it and closes it.
package faulttest

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// A Kind is a way for a read or write to fail.
type Kind int

const (
	None  Kind = iota
	Fail       // the operation does nothing, and the connection is closed
	Cut        // half of the operation is done, and the connection is closed
	Stall      // the operation blocks until its deadline or Close
)

// Kinds are all ways to fail.
var Kinds = [...]Kind{Fail, Cut, Stall}

func (k Kind) String() string { return [...]string{"none", "fail", "cut", "stall"}[k] }

// A Fault describes the failure of one operation of a connection.
type Fault struct {
	Kind Kind
	At   int // the number of the operation; reads and writes are counted together, from 0
}

func (f Fault) String() string { return fmt.Sprintf("%v at operation %d", f.Kind, f.At) }

// A Conn is a connection on which one read or write fails.
type Conn struct {
	net.Conn
	fault   Fault
	stalled net.Conn // one end of a pipe whose other end is unused
	ops     atomic.Int64
	closed  atomic.Bool
}

// Wrap returns a Conn over nc, which it owns.
func Wrap(nc net.Conn, f Fault) *Conn {
	stalled, _ := net.Pipe()
	return &Conn{Conn: nc, fault: f, stalled: stalled}
}

// Ops returns the number of reads and writes so far.
func (c *Conn) Ops() int { return int(c.ops.Load()) }

// Closed reports whether Close was called.
func (c *Conn) Closed() bool { return c.closed.Load() }

func (c *Conn) do(p []byte, op, stall func([]byte) (int, error)) (int, error) {
	if at := c.ops.Add(1) - 1; c.fault.Kind == None || at != int64(c.fault.At) {
		return op(p)
	}
	switch c.fault.Kind {
	case Stall:
		return stall(p)
	case Cut:
		n, err := op(p[:(len(p)+1)/2])
		c.Conn.Close()
		return n, errors.Join(err, syscall.ECONNRESET)
	default:
		c.Conn.Close()
		return 0, syscall.ECONNRESET
	}
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) { return c.do(p, c.Conn.Read, c.stalled.Read) }

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) { return c.do(p, c.Conn.Write, c.stalled.Write) }

// Close implements net.Conn. It ends an operation that stalls.
func (c *Conn) Close() error {
	c.closed.Store(true)
	return errors.Join(c.Conn.Close(), c.stalled.Close())
}

// CloseWrite ends the stream toward the peer.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetLinger is like the method of net.TCPConn, if the connection supports it.
func (c *Conn) SetLinger(seconds int) error {
	if l, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(seconds)
	}
	return errors.ErrUnsupported
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.Conn.SetDeadline(t), c.stalled.SetDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return errors.Join(c.Conn.SetReadDeadline(t), c.stalled.SetReadDeadline(t))
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return errors.Join(c.Conn.SetWriteDeadline(t), c.stalled.SetWriteDeadline(t))
}
