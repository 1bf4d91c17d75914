package floor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"
)

// records is the number of full records that a loop moves with one read and one
// write.
const records = 16

// A loop relays the connections of one core.
type loop struct {
	epoll int

	mu     sync.Mutex
	relays map[int]*relay // the relays by both of their descriptors

	ended  []*relay // relays that ended in this turn
	sealed []byte   // records to the server
	opened []byte   // records from the server
	plain  []byte   // decrypted bytes to the client
}

func newLoop() (*loop, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	return &loop{
		epoll: epoll, relays: map[int]*relay{},
		sealed: make([]byte, records*(headerBytes+maxPlain+1+tagBytes)),
		opened: make([]byte, maxRecord+records*maxRecord),
		plain:  make([]byte, maxRecord+records*maxRecord),
	}, err
}

// add hands a relay to the loop, which owns it from then on.
func (l *loop) add(c *relay) error {
	l.mu.Lock()
	l.relays[c.client], l.relays[c.server] = c, c
	l.mu.Unlock()
	for _, fd := range []int{c.client, c.server} {
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
		if err := syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
			return err
		}
	}
	return nil
}

// run serves until the process ends.
func (l *loop) run() {
	runtime.LockOSThread()
	events := make([]syscall.EpollEvent, 128)
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			fmt.Fprintln(os.Stderr, "floor: epoll:", errno)
			os.Exit(1)
		}
		for _, e := range events[:n] {
			fd := int(e.Fd)
			l.mu.Lock()
			c := l.relays[fd]
			l.mu.Unlock()
			if c == nil {
				continue // the relay ended earlier in this turn
			}
			move := l.fromServer
			if fd == c.client {
				move = l.fromClient
			}
			if err := move(c); err != nil {
				l.end(c, err)
			}
		}
		// Close descriptors only now: another relay could get the same descriptor
		// while events of this turn still refer to it.
		for _, c := range l.ended {
			c.close()
		}
		l.ended = l.ended[:0]
	}
}

// end removes a relay, which is closed after the turn. It prints any error except the
// end of a stream.
func (l *loop) end(c *relay, err error) {
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		fmt.Fprintln(os.Stderr, "floor:", err)
	}
	l.mu.Lock()
	delete(l.relays, c.client)
	delete(l.relays, c.server)
	l.mu.Unlock()
	l.ended = append(l.ended, c)
}

// fromClient reads the bytes of up to 16 records, encrypts them in place, and writes
// the records.
func (l *loop) fromClient(c *relay) error {
	const size = headerBytes + maxPlain + 1 + tagBytes
	var parts [records]syscall.Iovec
	for i := range parts {
		parts[i].Base = &l.sealed[i*size+headerBytes]
		parts[i].SetLen(maxPlain)
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_READV, uintptr(c.client), uintptr(unsafe.Pointer(&parts[0])), records)
	switch {
	case errno != 0:
		return errno
	case n == 0:
		copy(l.sealed[headerBytes:], []byte{1, 0}) // close_notify
		_ = writeAll(c.server, c.write.seal(l.sealed, 2, typeAlert))
		return io.EOF
	}
	end := 0
	for i, left := 0, int(n); left > 0; i++ {
		part := min(left, maxPlain)
		end = i*size + len(c.write.seal(l.sealed[i*size:], part, typeApplication))
		left -= part
	}
	return writeAll(c.server, l.sealed[:end])
}

// fromServer reads up to 16 records, decrypts the complete ones, and writes their
// bytes.
func (l *loop) fromServer(c *relay) error {
	have := copy(l.opened, c.rest)
	room := l.opened[have : have+records*maxRecord]
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(c.server), uintptr(unsafe.Pointer(&room[0])), uintptr(len(room)))
	switch {
	case errno != 0:
		return errno
	case n == 0:
		return io.ErrUnexpectedEOF
	}
	left, plain := l.opened[:have+int(n)], l.plain[:0]
	for len(left) >= headerBytes {
		size := headerBytes + int(left[3])<<8 + int(left[4])
		if size > maxRecord {
			return fmt.Errorf("a record of %d bytes", size)
		}
		if len(left) < size {
			break
		}
		more, contentType, err := c.read.open(plain, left[:size])
		if err != nil {
			return err
		}
		switch left = left[size:]; contentType {
		case typeApplication:
			plain = more
		case typeAlert:
			return errors.Join(writeAll(c.client, plain), io.EOF)
		case typeHandshake: // a session ticket
		}
	}
	c.rest = append(c.rest[:0], left...)
	return writeAll(c.client, plain)
}
