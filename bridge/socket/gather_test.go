package socket_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// readNow returns the available bytes, or waits for the first.
func readNow(t *testing.T, c net.Conn, size int) []byte {
	t.Helper()
	p := make([]byte, size)
	n, err := c.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	return p[:n]
}

func TestFlushSendsGatheredBytesAtOnce(t *testing.T) {
	s, peer := pair(t, "tcp")
	s.Gather(new(socket.Pool))
	for range 3 {
		if n, err := s.Write([]byte("abc")); n != 3 || err != nil {
			t.Fatal(n, err)
		}
	}
	if s.Held() != 9 {
		t.Fatalf("holds %d", s.Held())
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := readNow(t, peer, 100); string(got) != "abcabcabc" || s.Held() != 0 {
		t.Fatalf("got %q, still holds %d", got, s.Held())
	}
	if err := s.Flush(); err != nil {
		t.Fatalf("Flush of nothing: %v", err)
	}
}

// Bytes arrive as they were written, for any number of Writes between two calls of
// Flush, and the number of held bytes stays bounded.
func TestGatheringIsBounded(t *testing.T) {
	s, peer := pair(t, "tcp")
	s.Gather(new(socket.Pool))
	var sent []byte
	received := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(peer)
		received <- all
	}()
	for i, size := range []int{1, 16 << 10, 16 << 10, 1, 100 << 10, 32 << 10, 32<<10 + 1, 128 << 10, 128<<10 + 1, 1 << 20, 5, 64 << 10, 64 << 10, 64 << 10} {
		p := bytes.Repeat([]byte{byte(i)}, size)
		sent = append(sent, p...)
		if n, err := s.Write(p); n != size || err != nil {
			t.Fatal(n, err)
		}
		if s.Held() > 160<<10 {
			t.Fatalf("holds %d", s.Held())
		}
	}
	if err := s.CloseWrite(); err != nil { // CloseWrite flushes
		t.Fatal(err)
	}
	if got := <-received; !bytes.Equal(got, sent) {
		t.Fatalf("got %d bytes, sent %d", len(got), len(sent))
	}
}

func TestCloseSendsGatheredBytes(t *testing.T) {
	s, peer := pair(t, "tcp")
	s.Gather(new(socket.Pool))
	s.Write([]byte("goodbye"))
	s.SetWriteDeadline(time.Unix(1, 0)) // as crypto/tls leaves the deadline
	s.Close()
	if got, err := io.ReadAll(peer); string(got) != "goodbye" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("Write succeeds after Close")
	}
}

func TestResetDropsGatheredBytes(t *testing.T) {
	s, peer := pair(t, "tcp")
	s.Gather(new(socket.Pool))
	s.Write([]byte("goodbye"))
	s.Reset()
	if got, err := io.ReadAll(peer); len(got) != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestEveryFlushReturnsTheFirstFailure(t *testing.T) {
	s, peer := pair(t, "tcp")
	s.Gather(new(socket.Pool))
	peer.(*net.TCPConn).SetLinger(0)
	peer.Close()
	var err error
	for err == nil {
		s.Write([]byte("x"))
		err = s.Flush()
	}
	if again := s.Flush(); again != err {
		t.Errorf("Flush: %v, then %v", err, again)
	}
	if n, again := s.Write([]byte("x")); n != 0 || again != err {
		t.Errorf("Write: %d, %v", n, again)
	}
}

// TryFill receives the bytes that arrived while a connection was idle, and
// reports the end of the stream.
func TestTryFill(t *testing.T) {
	s, peer := pair(t, "tcp")
	s.Stream(new(socket.Pool))
	if err := s.TryFill(); err != socket.ErrWouldBlock {
		t.Fatalf("of an idle connection: %v", err)
	}
	peer.Write([]byte("late"))
	for s.TryFill() == socket.ErrWouldBlock {
	}
	if got := string(s.Taken()); got != "late" {
		t.Fatalf("received %q", got)
	}
	if err := s.TryFill(); err != nil || string(s.Taken()) != "late" {
		t.Fatalf("again: %v, %q", err, s.Taken())
	}
	s.Release()
	peer.Close()
	for {
		err := s.TryFill()
		if err == io.EOF {
			break
		}
		if err != socket.ErrWouldBlock {
			t.Fatal(err)
		}
	}
}

// Through a *tls.Conn: one Fill receives many records, one Flush sends many, and a
// ticket does not look like the end.
func TestTLSOnAStreamThatGathers(t *testing.T) {
	ca := certstest.NewCA(t)
	serverConfig := &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "x.test"))}}
	s, far := pair(t, "tcp")
	pool := new(socket.Pool)
	peer := tls.Server(far, serverConfig)
	go peer.Handshake()
	conn := tls.Client(s, &tls.Config{ServerName: "x.test", RootCAs: ca.Pool(), DynamicRecordSizingDisabled: true})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	s.Stream(pool)
	s.Gather(pool)

	sent := bytes.Repeat([]byte("0123456789"), 5000)
	if n, err := conn.Write(sent); n != len(sent) || err != nil {
		t.Fatal(n, err)
	}
	if s.Held() <= len(sent) {
		t.Fatalf("holds %d of %d bytes", s.Held(), len(sent))
	}
	go func() {
		s.Flush()
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatal(err)
	}

	go func() { peer.Write(sent); peer.CloseWrite() }()
	got = got[:0]
	for buf := make([]byte, 1000); ; {
		n, err := conn.Read(buf)
		got = append(got, buf[:n]...)
		if errors.Is(err, socket.ErrWouldBlock) {
			err = s.Fill()
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, sent) {
		t.Fatalf("got %d bytes, sent %d", len(got), len(sent))
	}
}
