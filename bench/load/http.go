package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/wire"
)

// A Count selects the unit of an HTTP load.
type Count int

const (
	// Requests counts requests.
	Requests Count = iota
	// Bytes counts bytes of bodies.
	Bytes
)

// HTTP repeats GET requests for bodies of size bytes on each connection, over
// HTTP/1.1. Each requests different bytes, so that swapped answers are
// detected. It records the time to the last byte.
func HTTP(conns int, size uint64, unit Count) Func {
	return HTTPHosts(conns, size, unit, []string{"bench.test"})
}

// HTTPHosts is HTTP with a random host in each request. The hosts' names must
// have the same length.
func HTTPHosts(conns int, size uint64, unit Count, hosts []string) Func {
	return func(ctx context.Context, target Target, m *Meter) {
		slots := make(chan struct{}, 32) // as in Echo
		each(ctx, m, conns, func(int) error {
			slots <- struct{}{}
			c, err := newHTTPConn(ctx, target, size, hosts)
			<-slots
			if err != nil {
				return err
			}
			defer c.close()
			r := m.recorder()
			if !m.allReady(ctx) {
				return nil
			}
			for {
				start := time.Now()
				count := func(int) {}
				if unit == Bytes {
					count = m.add
				}
				if err := c.get(count); err != nil {
					return err
				}
				r.record(time.Since(start))
				if unit == Requests {
					m.add(1)
				}
			}
		})
	}
}

// An httpConn is an HTTP/1.1 client. It parses as little as possible, because
// its CPU time is not available to the proxy.
type httpConn struct {
	conn    net.Conn
	size    uint64
	request []byte
	seedAt  int // offset in request of the 16 digits of the seed
	hosts   []string
	hostAt  int // offset in request of the host
	buf     []byte
}

// newHTTPConn returns a connection after a first answered request.
func newHTTPConn(ctx context.Context, target Target, size uint64, hosts []string) (*httpConn, error) {
	conn, err := target.dial(ctx)
	if err != nil {
		return nil, err
	}
	c := &httpConn{conn: conn, size: size, hosts: hosts, buf: make([]byte, min(4<<10+size, 128<<10))}
	c.request = fmt.Appendf(nil, "GET /bytes/%d/", size)
	c.seedAt = len(c.request)
	c.request = append(c.request, "0123456789abcdef HTTP/1.1\r\nHost: "...)
	c.hostAt = len(c.request)
	c.request = append(c.request, hosts[0]+"\r\n\r\n"...)
	if err := c.get(func(int) {}); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *httpConn) close() { _ = c.conn.Close() }

// get sends a request and reads its answer. It passes count the number of body
// bytes as they arrive.
func (c *httpConn) get(count func(int)) error {
	seed := c.reseed()
	copy(c.request[c.hostAt:], c.hosts[rand.IntN(len(c.hosts))])
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	return c.answer(seed, count)
}

// reseed changes the request to the bytes of another seed, and returns the
// seed.
func (c *httpConn) reseed() uint64 {
	seed := rand.Uint64() | 1<<63 // with the top bit set, its hexadecimal form has a fixed width
	strconv.AppendUint(c.request[:c.seedAt], seed, 16)
	return seed
}

// answer reads an answer.
func (c *httpConn) answer(seed uint64, count func(int)) error {
	have := 0
	for {
		n, err := c.conn.Read(c.buf[have:])
		have += n
		if end := bytes.Index(c.buf[:have], []byte("\r\n\r\n")); end >= 0 {
			if err := c.checkHead(c.buf[:end+2]); err != nil {
				return err
			}
			return c.body(seed, c.buf[end+4:have], count)
		}
		if err != nil {
			return err
		}
		if have == len(c.buf) {
			return errors.New("the head of an answer is too long")
		}
	}
}

// checkHead requires a 200 with the body's length.
func (c *httpConn) checkHead(head []byte) error {
	status, fields, _ := bytes.Cut(head, []byte("\r\n"))
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("an answer is %.100q", status)
	}
	for line := range bytes.Lines(fields) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if len(name) == len("content-length") && bytes.EqualFold(name, []byte("content-length")) {
			if n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 63); err != nil || n != c.size {
				return fmt.Errorf("an answer claims %.100q bytes, not %d", value, c.size)
			}
			return nil
		}
	}
	return errors.New("an answer has no length")
}

// body checks the body. have is the part that was already read.
func (c *httpConn) body(seed uint64, have []byte, count func(int)) error {
	for offset := uint64(0); ; {
		if offset+uint64(len(have)) > c.size || !wire.Matches(seed, offset, have) {
			return errMismatch
		}
		offset += uint64(len(have))
		count(len(have))
		if offset == c.size {
			return nil
		}
		n, err := c.conn.Read(c.buf)
		have = c.buf[:n]
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
}
