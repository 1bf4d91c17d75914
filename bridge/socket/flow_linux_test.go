package socket

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// queued waits until the socket holds at least n unread bytes.
func queued(t *testing.T, s *Socket, n int) {
	t.Helper()
	raw, err := s.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for have := 0; have < n; {
		if cerr := raw.Control(func(fd uintptr) { have, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
	}
}

// fill writes to a Socket until its kernel buffer is full.
func fill(t *testing.T, s *Socket) (sent int) {
	t.Helper()
	for p := make([]byte, 64<<10); ; {
		n, err := s.TryWrite(p)
		if sent += n; err != nil {
			t.Fatal(err)
		} else if n == 0 {
			return sent
		}
	}
}

// In a bulk flow a read is as large as the free buffer of the destination.
func TestReadSize(t *testing.T) {
	s, far := streamed(t)
	to, sink := streamed(t)
	_ = s.Conn.(*net.TCPConn).SetReadBuffer(1 << 20)
	_ = to.Conn.(*net.TCPConn).SetWriteBuffer(1 << 20)
	go func() { _, _ = far.Write(make([]byte, 4<<20)) }()
	read := func() int {
		queued(t, s, 180<<10)
		if err := s.Fill(); err != nil {
			t.Fatal(err)
		}
		defer s.Release()
		return len(s.Taken())
	}
	for i, want := range []int{BufferSize, bulkSize, bulkSize} { // the last has no known destination
		if n := read(); n != want {
			t.Fatalf("read %d brought %d bytes, want %d", i, n, want)
		}
	}
	s.FlowInto(to)
	if n := read(); n <= bulkSize || n > flowSize {
		t.Errorf("read %d bytes for a destination with room", n)
	}
	sent := fill(t, to)
	if n := read(); n != bulkSize {
		t.Errorf("read %d bytes for a full destination", n)
	}
	if _, err := io.ReadFull(sink, make([]byte, sent)); err != nil {
		t.Fatal(err)
	}
	if n := read(); n <= bulkSize {
		t.Errorf("read %d bytes for a destination with room again", n)
	}
	s.FlowInto(nil)
	if n := read(); n != bulkSize {
		t.Errorf("read %d bytes for an unknown destination", n)
	}
}

func TestLargeBuffersAreLimited(t *testing.T) {
	var p Pool
	var lent []*[]byte
	for range maxFlows {
		lent = append(lent, p.LendLarge(flowSize))
	}
	for _, b := range lent {
		if len(*b) < flowSize {
			t.Fatalf("a buffer of %d", len(*b))
		}
	}
	if b := p.LendLarge(flowSize); len(*b) != bulkSize+slack {
		t.Errorf("one more buffer, of %d", len(*b))
	}
	for _, n := range []int{1, BufferSize, BufferSize + 1, bulkSize + slack + 1, flowSize + slack, 1 << 20} {
		b := p.Lend(n) // Lend must not fail
		if len(*b) < n {
			t.Errorf("%d for %d", len(*b), n)
		}
		p.Put(b)
	}
	p.Put(lent[0])
	if b := p.LendLarge(flowSize); len(*b) < flowSize {
		t.Errorf("a returned buffer is not lent again")
	}
}

func TestShrinkFitsTheBufferToItsContent(t *testing.T) {
	var p Pool
	for _, test := range []struct{ have, content, want int }{
		{flowSize, 1, BufferSize},
		{flowSize, 100 << 10, bulkSize + slack},
		{bulkSize, 100 << 10, bulkSize + slack},
		{bulkSize, 1, BufferSize},
		{BufferSize, 1, BufferSize},
	} {
		b := p.LendLarge(test.have)
		content := (*b)[len(*b)-test.content:]
		for i := range content {
			content[i] = byte(i)
		}
		want := bytes.Clone(content)
		got := p.Shrink(b, content)
		if len(*got) != test.want {
			t.Errorf("%d with %d bytes in it becomes %d, want %d", test.have, test.content, len(*got), test.want)
		}
		if got != b {
			content = (*got)[:test.content]
		}
		if !bytes.Equal(content, want) {
			t.Errorf("%d: other content", test.have)
		}
		p.Put(got)
	}
	if n := p.flows.Load(); n != 0 {
		t.Errorf("%d are still lent", n)
	}
}

// A large write is held as a whole for one system call. While that call waits, the
// bytes do not occupy one of the few largest buffers.
func TestBlockedFlushHoldsNoLargeBuffer(t *testing.T) {
	s, far := streamed(t)
	pool := &Pool{}
	sent := fill(t, s)
	s.Gather(pool)
	p := bytes.Repeat([]byte("x"), flowSize)
	s.Expect(len(p))
	if _, err := s.Write(p); err != nil {
		t.Fatal(err)
	}
	if held, large := s.Held(), pool.flows.Load(); held != len(p) || large != 1 {
		t.Fatalf("%d bytes are held, %d large buffers", held, large)
	}
	done := make(chan error, 1)
	go func() { done <- s.Flush() }()
	for until := time.Now().Add(time.Minute); pool.flows.Load() > 0; runtime.Gosched() {
		if time.Now().After(until) {
			t.Fatal("the blocked flush holds a large buffer")
		}
	}
	if len(done) > 0 {
		t.Fatal("the flush does not wait")
	}
	if _, err := io.ReadFull(far, make([]byte, sent)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(p))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, p) {
		t.Fatal("the bytes differ", err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
