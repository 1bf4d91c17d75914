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

func TestFillTakesInWhatReadGivesOut(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			s, peer := pair(t, network)
			s.Stream(new(socket.Pool))
			if _, err := s.Read(make([]byte, 1)); err != socket.ErrWouldBlock {
				t.Fatalf("Read before Fill: %v, want ErrWouldBlock", err)
			}
			// Fill begins to wait before or after the bytes come: both must do.
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

func TestFillKeepsWhatIsNotConsumed(t *testing.T) {
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

// A net.Conn that is no kernel socket is read all the same.
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
	var told []string
	tell := func(who string) func() { return func() { told = append(told, who) } }
	s := socket.New(near, tell("owner"))
	s.OnClose(tell("other"))
	if len(told) != 0 {
		t.Errorf("told %v before the end", told)
	}
	s.Close()
	s.Reset()
	s.Close()
	s.OnClose(tell("late"))
	if want := []string{"owner", "other", "late"}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
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

// A write that learns of a reset leaves the reader with what looks like a
// clean end; WasReset tells the difference.
func TestWasReset(t *testing.T) {
	t.Run("after a reset that a write was told of", func(t *testing.T) {
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
			t.Fatal("the reset passes for a clean end")
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

func TestHearFirst(t *testing.T) {
	// leave says something and goes, with bytes unread: s is reset.
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
		t.Fatal("writing to a peer that has gone does not fail")
	}

	s, peer = pair(t, "tcp")
	s.HearFirst()
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
	for name, conn := range map[string]net.Conn{"itself": s, "TLS": tls.Client(s, &tls.Config{ServerName: "x"})} {
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
