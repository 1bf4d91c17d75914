package socket_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns a Socket and the other end of its connection.
func pair(t *testing.T, network string) (*socket.Socket, net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := socket.New(conn, nil)
	t.Cleanup(func() { s.Close(); peer.Close() })
	return s, peer
}

func TestReadReturnsWhatFillReceived(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			s, peer := pair(t, network)
			s.Stream(new(socket.Pool))
			if _, err := s.Read(make([]byte, 1)); err != socket.ErrWouldBlock {
				t.Fatalf("Read before Fill: %v, want ErrWouldBlock", err)
			}
			// Fill must work whether it starts before or after the bytes arrive.
			go peer.Write([]byte("hello"))
			if err := s.Fill(); err != nil {
				t.Fatal(err)
			}
			var got []byte
			for p := make([]byte, 2); ; {
				n, err := s.Read(p)
				got = append(got, p[:n]...)
				if err == socket.ErrWouldBlock {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if string(got) != "hello" {
				t.Fatalf("got %q", got)
			}
			peer.(interface{ CloseWrite() error }).CloseWrite()
			if err := s.Fill(); err != io.EOF {
				t.Fatalf("Fill at the end: %v, want EOF", err)
			}
			if _, err := s.Write([]byte("still open")); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestFillKeepsUnconsumedBytes(t *testing.T) {
	s, peer := pair(t, "tcp")
	s.Stream(new(socket.Pool))
	peer.Write([]byte("abc"))
	for range 3 {
		if err := s.Fill(); err != nil {
			t.Fatal(err)
		}
	}
	if got := string(s.Taken()); got != "abc" {
		t.Fatalf("Taken = %q", got)
	}
	s.Release()
	if len(s.Taken()) != 0 {
		t.Fatal("Release left something")
	}
}

// A net.Conn that is not a kernel socket can be read too.
func TestFillWithoutAKernelSocket(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	s := socket.New(a, nil)
	defer s.Close()
	s.Stream(new(socket.Pool))
	go func() { b.Write([]byte("hello")); b.Close() }()
	if err := s.Fill(); err != nil || string(s.Taken()) != "hello" {
		t.Fatalf("Fill: %v, Taken %q", err, s.Taken())
	}
	s.Release()
	if err := s.Fill(); err != io.EOF {
		t.Fatalf("Fill at the end: %v, want EOF", err)
	}
	if err := s.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("CloseWrite on a pipe: %v", err)
	}
}

func TestOnCloseIsCalledOnce(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	var called []string
	tell := func(who string) func() { return func() { called = append(called, who) } }
	s := socket.New(near, tell("owner"))
	s.OnClose(tell("other"))
	if len(called) != 0 {
		t.Errorf("called %v before the close", called)
	}
	s.Close()
	s.Reset()
	s.Close()
	s.OnClose(tell("late"))
	if want := []string{"owner", "other", "late"}; !slices.Equal(called, want) {
		t.Errorf("called %v, want %v", called, want)
	}
}

func TestCloseEndsAWaitingFill(t *testing.T) {
	s, _ := pair(t, "tcp")
	s.Stream(new(socket.Pool))
	failed := make(chan error, 1)
	go func() { failed <- s.Fill() }()
	s.Close()
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("Fill: %v, want ErrClosed", err)
	}
}

func TestResetReachesThePeerAsReset(t *testing.T) {
	s, peer := pair(t, "tcp")
	s.Reset()
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("peer reads %v, want a reset", err)
	}
}

func wasReset(t *testing.T, s *socket.Socket) (reset bool) {
	t.Helper()
	raw, err := s.Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { reset = socket.WasReset(int(fd)) }); err != nil {
		t.Fatal(err)
	}
	return reset
}

// If a write gets the error of a reset, the next read reports a clean end. WasReset
// still detects the reset.
func TestWasReset(t *testing.T) {
	t.Run("after a write has failed with the reset", func(t *testing.T) {
		s, peer := pair(t, "tcp")
		s.Stream(new(socket.Pool))
		peer.(*net.TCPConn).SetLinger(0)
		peer.Close()
		for {
			if _, err := s.Write([]byte("x")); err != nil {
				break
			}
		}
		if err := s.Fill(); err == io.EOF && !wasReset(t, s) {
			t.Fatal("the reset looks like a clean end")
		}
	})
	t.Run("after a clean end", func(t *testing.T) {
		s, peer := pair(t, "tcp")
		s.Stream(new(socket.Pool))
		peer.Close()
		if err := s.Fill(); err != io.EOF || wasReset(t, s) {
			t.Fatalf("Fill: %v, WasReset %v", err, wasReset(t, s))
		}
	})
}

func TestReadBeforeReset(t *testing.T) {
	// leave sends an answer and closes with unread bytes, so the kernel resets s.
	leave := func(s *socket.Socket, peer net.Conn) {
		t.Helper()
		if _, err := s.Write([]byte("unread")); err != nil {
			t.Fatal(err)
		}
		if _, err := peer.Write([]byte("no")); err != nil {
			t.Fatal(err)
		}
		peer.Close()
	}
	writeUntilItFails := func(s *socket.Socket, tries int) (err error) {
		for ; tries > 0 && err == nil; tries-- {
			_, err = s.Write([]byte("more"))
		}
		return err
	}

	s, peer := pair(t, "tcp")
	leave(s, peer)
	if err := writeUntilItFails(s, 1000); err == nil {
		t.Fatal("writing to a closed peer does not fail")
	}

	s, peer = pair(t, "tcp")
	s.ReadBeforeReset()
	leave(s, peer)
	if err := writeUntilItFails(s, 1000); err != nil {
		t.Errorf("before anything was read Write fails with %v", err)
	}
	got := make([]byte, 10)
	if n, err := s.Read(got); err != nil || string(got[:n]) != "no" {
		t.Errorf("Read gives %q, %v", got[:n], err)
	}
	if n, err := s.Read(got); err == nil {
		t.Errorf("then Read gives %q and no error", got[:n])
	}
	if err := writeUntilItFails(s, 1000); err == nil {
		t.Error("once something was read Write does not fail")
	}
}

func TestOfFindsTheSocketBeneath(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	s := socket.New(a, nil)
	defer s.Close()
	for name, conn := range map[string]net.Conn{"the socket": s, "TLS": tls.Client(s, &tls.Config{ServerName: "x"})} {
		if socket.Of(conn) != s {
			t.Errorf("%s: not found", name)
		}
	}
	if socket.Of(b) != nil {
		t.Error("found one in a bare conn")
	}
}

func BenchmarkFill(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer peer.Close()
	conn, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	s := socket.New(conn, nil)
	defer s.Close()
	s.Stream(new(socket.Pool))
	message := bytes.Repeat([]byte("x"), 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := peer.Write(message); err != nil {
			b.Fatal(err)
		}
		for n := 0; n < len(message); {
			if err := s.Fill(); err != nil {
				b.Fatal(err)
			}
			n += len(s.Taken())
			s.Release()
		}
	}
}
