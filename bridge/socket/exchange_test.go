package socket

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// streamed returns a Socket after Stream, and its peer.
func streamed(t *testing.T) (*Socket, net.Conn) {
	t.Helper()
	near, far := connected(t)
	s := New(near, nil)
	s.Stream(&Pool{})
	t.Cleanup(func() { s.Close() })
	_ = far.SetDeadline(time.Now().Add(time.Minute))
	return s, far
}

func TestExchangeSendsAndWaitsForTheAnswer(t *testing.T) {
	for _, size := range []int{1, 1000, 16 << 20} { // the last size exceeds any socket buffer
		for _, gathered := range []bool{false, true} {
			s, far := streamed(t)
			question := bytes.Repeat([]byte("q"), size)
			if gathered {
				if size > bulkSize {
					continue // too large to gather
				}
				s.Gather(&Pool{})
				if _, err := s.Write(question); err != nil {
					t.Fatal(err)
				}
			}
			go func() {
				got := make([]byte, size)
				if _, err := io.ReadFull(far, got); err == nil && bytes.Equal(got, question) {
					_, _ = far.Write([]byte("answer"))
				} else {
					far.Close()
				}
			}()
			sent := false
			var err error
			if gathered {
				err = s.Exchange(nil, nil)
			} else {
				err = s.Exchange(question, func() { sent = true })
			}
			if err != nil || string(s.Taken()) != "answer" || sent == gathered || s.Held() != 0 {
				t.Errorf("%d bytes, gathered %v: %q, %v, sent %v, %d held", size, gathered, s.Taken(), err, sent, s.Held())
			}
		}
	}
}

func TestExchangeSendsNothingAfterUnexpectedBytes(t *testing.T) {
	s, far := streamed(t)
	if _, err := far.Write([]byte("unasked")); err != nil {
		t.Fatal(err)
	}
	for len(s.Taken()) == 0 { // waits until the bytes have arrived
		if err := s.TryFill(); err != nil && err != ErrWouldBlock {
			t.Fatal(err)
		}
	}
	if err := s.Exchange([]byte("question"), nil); !errors.Is(err, ErrUnsolicited) || string(s.Taken()) != "unasked" {
		t.Errorf("%v, %q", err, s.Taken())
	}
	s.Release()
	far.Close()
	for err := ErrWouldBlock; err == ErrWouldBlock; {
		err = s.TryFill()
	}
	if err := s.Exchange([]byte("question"), nil); !errors.Is(err, ErrUnsolicited) || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestCloseEndsExchange(t *testing.T) {
	s, far := streamed(t)
	go func() {
		_, _ = far.Read(make([]byte, 1))
		s.Close()
	}()
	if err := s.Exchange([]byte("q"), nil); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
