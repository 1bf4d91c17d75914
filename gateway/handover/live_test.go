package handover

import (
	"bytes"
	"context"
	"os"
	"syscall"
	"testing"
	"time"
)

// pair returns the two ends of an upgrade's connection.
func pair(t *testing.T) (*Successor, *Predecessor) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]peer
	for i, fd := range fds {
		if ends[i], err = newPeer(os.NewFile(uintptr(fd), "upgrade")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].Close() })
	}
	return &Successor{peer: ends[0], ended: make(chan struct{})}, &Predecessor{peer: ends[1]}
}

// upgrading runs the steps of the new process, and returns the live state that it gets.
func upgrading(ctx context.Context, p *Predecessor) <-chan []byte {
	got := make(chan []byte, 1)
	go func() {
		defer close(got)
		if _, err := p.Take(ctx, "v2"); err != nil {
			return
		}
		if live, err := p.Ready(ctx, nil); err == nil && p.send(message{Type: accepting}) == nil {
			got <- live
		}
	}()
	return got
}

func TestTheLiveStateIsPassedOn(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, size := range []int{0, 1, maxBytes, maxBytes + 1, 5 << 20} {
		s, p := pair(t)
		got := upgrading(ctx, p)
		if _, err := s.Hello(ctx); err != nil || !s.ReadsLive() {
			t.Fatalf("it reads the state: %t, %v", s.ReadsLive(), err)
		}
		if err := s.Pass(ctx, New(noStore{}, nil, nil), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		state := bytes.Repeat([]byte("0123456789abcdef!"), size/17+1)[:size]
		if err := s.Accept(ctx, state); err != nil {
			t.Fatal(err)
		}
		if live := <-got; !bytes.Equal(live, state) {
			t.Errorf("%d bytes arrive of %d", len(live), size)
		}
	}
}

// An older process sends no live state, and sends and ignores fields of its own.
func TestAnOlderProcessPassesNoLiveStateOn(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, p := pair(t)
	got := upgrading(ctx, p)
	if _, _, err := s.receive(hello); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`{"type":"sockets","last":true,"other":{"a":1}}`, `{"type":"accept","other":[1]}`} {
		if _, err := s.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if live, ok := <-got; !ok || live != nil {
		t.Errorf("%q, %t", live, ok)
	}
}

// An older new process does not know the message.
func TestAnOlderProcessGetsNoLiveState(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, p := pair(t)
	if _, err := p.Write([]byte(`{"type":"hello","text":"v1"}`)); err != nil {
		t.Fatal(err)
	}
	if version, err := s.Hello(ctx); err != nil || version != "v1" || s.ReadsLive() {
		t.Errorf("%q, %t, %v", version, s.ReadsLive(), err)
	}
}

// A process that loses the old one in the middle of the state continues alone, without it.
func TestAnIncompleteStateIsNotUsed(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, p := pair(t)
	got := make(chan []byte, 1)
	p.lent = true
	go func() {
		live, err := p.Ready(ctx, nil)
		if err != nil {
			live = []byte(err.Error())
		}
		got <- live
	}()
	if _, err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.send(message{Type: liveState, State: []byte("half")}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if live := <-got; live != nil {
		t.Errorf("%q", live)
	}
}
