package socket_test

import (
	"errors"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// Reads block during a TLS handshake that runs within a read, after the gathered
// writes are sent. Other reads do not block.
func TestBeginWait(t *testing.T) {
	s, far := pair(t, "tcp")
	var pool socket.Pool
	if !s.BeginWait() {
		t.Error("BeginWait fails although reads wait anyway")
	}
	s.Stream(&pool)
	s.Gather(&pool)
	buf := make([]byte, 1)
	if s.BeginWait() {
		t.Error("a read waits without permission")
	}
	if _, err := s.Read(buf); !errors.Is(err, socket.ErrWouldBlock) {
		t.Errorf("a read returned %v", err)
	}
	s.AllowWait(true)
	if !s.BeginWait() {
		t.Error("a read does not wait with permission")
	}
	if _, err := s.Write([]byte("q")); err != nil {
		t.Fatal(err)
	}
	peer := make(chan error, 1)
	go func() {
		b := make([]byte, 1)
		_, err := far.Read(b)
		if err == nil {
			_, err = far.Write([]byte{b[0] + 1})
		}
		peer <- err
	}()
	if n, err := s.Read(buf); n != 1 || err != nil || buf[0] != 'r' {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	if err := <-peer; err != nil {
		t.Error(err)
	}
	s.AllowWait(true)
	if _, err := s.Read(buf); !errors.Is(err, socket.ErrWouldBlock) {
		t.Errorf("the next read returned %v", err)
	}
}
