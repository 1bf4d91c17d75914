// Package floor relays plaintext connections to a TLS 1.3 server with the least work
// that this machine allows, for comparison with the proxies.
//
// crypto/tls makes the handshake. Then a loop per core reads with one system call,
// encrypts or decrypts with the same AES-GCM, and writes with one system call. It has
// no timeouts, limits, counters or half-open connections, never resumes a session, and
// blocks a whole loop while a peer does not read. So it is not a usable proxy.
package floor

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"unsafe"
)

// Serve relays connections that l accepts to backend, until l is closed. The config
// must verify the server.
//
// It turns off the process's garbage collection, because a collection waits for every
// thread, and the loops' threads are in system calls that the runtime does not know of.
func Serve(l *net.TCPListener, backend string, config *tls.Config) error {
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(2 * runtime.NumCPU())
	loops := make([]*loop, runtime.NumCPU())
	for i := range loops {
		var err error
		if loops[i], err = newLoop(); err != nil {
			return err
		}
		go loops[i].run()
	}
	for i := 0; ; i++ {
		client, err := l.AcceptTCP()
		if err != nil {
			return err
		}
		go func() {
			c, err := connect(client, backend, config)
			if err == nil {
				err = loops[i%len(loops)].add(c)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "floor:", err)
			}
		}()
	}
}

// connect makes the handshake with the server and takes the connections from the
// runtime. It owns client.
func connect(client *net.TCPConn, backend string, config *tls.Config) (*relay, error) {
	defer client.Close()
	raw, err := net.Dial("tcp", backend)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	var secrets secretLog
	config = config.Clone()
	config.MinVersion, config.KeyLogWriter = tls.VersionTLS13, &secrets
	if err := tls.Client(&recordReader{Conn: raw}, config).Handshake(); err != nil {
		return nil, err
	}
	c := &relay{}
	if c.write, err = newHalf(secrets.client); err != nil {
		return nil, err
	}
	if c.read, err = newHalf(secrets.server); err != nil {
		return nil, err
	}
	if c.client, err = take(client); err != nil {
		return nil, err
	}
	if c.server, err = take(raw.(*net.TCPConn)); err != nil {
		_ = syscall.Close(c.client)
		return nil, err
	}
	return c, nil
}

// take returns a blocking descriptor of the connection, which the caller owns.
func take(c *net.TCPConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(from uintptr) {
		if fd, dupErr = syscall.Dup(int(from)); dupErr == nil {
			dupErr = syscall.SetNonblock(fd, false)
		}
	})
	return fd, errors.Join(err, dupErr)
}

// A recordReader never returns bytes of two records at once, so that none is left in
// the buffer of crypto/tls after the handshake.
type recordReader struct {
	net.Conn
	header []byte // the header of the current record, as far as read
	left   int    // the bytes of its body that are not read yet
}

func (r *recordReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		p = p[:min(len(p), headerBytes-len(r.header))]
		n, err := r.Conn.Read(p)
		if r.header = append(r.header, p[:n]...); len(r.header) == headerBytes {
			r.left, r.header = int(r.header[3])<<8|int(r.header[4]), r.header[:0]
		}
		return n, err
	}
	n, err := r.Conn.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// A relay is a client's connection and the relay's connection to the server.
// One loop owns it.
type relay struct {
	client, server int // file descriptors
	write, read    *half
	rest           []byte // the start of an incomplete record
}

// close closes both sides.
func (c *relay) close() {
	_ = syscall.Close(c.client)
	_ = syscall.Close(c.server)
}

// writeAll writes all of p to a blocking descriptor.
func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch {
		case errno == syscall.EINTR:
			continue
		case errno != 0:
			return errno
		case n == 0:
			return io.ErrShortWrite
		}
		p = p[n:]
	}
	return nil
}
