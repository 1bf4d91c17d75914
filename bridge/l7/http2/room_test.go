package http2

import (
	"bytes"
	"errors"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
)

// A body whose peer has no room waits without a goroutine. It continues when there is
// room, and each byte arrives once.
func TestABlockedBodyContinuesWhenThereIsRoom(t *testing.T) {
	client, nc := dial(t, Options{})
	r := rawServer(t, nc, h2.Setting{ID: h2.SettingInitialWindowSize, Val: 10})
	eventually(t, "the settings to arrive", client.in.gotSettings.Load)
	s := client.Open()
	defer s.Done()
	r.must(s.Send(post("/"), false))
	body := []byte("0123456789abcdefghij")
	n, err := s.TryWrite(body)
	if n != 10 || err != nil {
		t.Fatalf("%d bytes were sent, %v; want those that the window allows", n, err)
	}
	id := r.takeRequest()
	ready := make(chan struct{}, 1)
	for n < len(body) {
		if !s.AwaitRoom(false, func() { ready <- struct{}{} }) {
			t.Fatal("the stream does not wait although its window is shut")
		}
		r.must(r.WriteWindowUpdate(id, 3))
		await(t, ready, "room")
		sent, err := s.TryWrite(body[n:])
		if sent != min(3, len(body)-n) || err != nil {
			t.Fatalf("%d bytes were sent, %v", sent, err)
		}
		n += sent
	}
	if s.AwaitRoom(true, nil) {
		t.Error("the end of a body waits for a window")
	}
	r.must(s.End(nil))
	var got []byte
	for ended := false; !ended; {
		f, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := f.(*h2.DataFrame); ok {
			got, ended = append(got, d.Data()...), d.StreamEnded()
		}
	}
	if !bytes.Equal(got, body) {
		t.Errorf("%q arrived, want %q", got, body)
	}
}

// Every end of a stream wakes a body that waits.
func TestTheEndOfAStreamUnblocksItsBody(t *testing.T) {
	for name, end := range map[string]func(r *raw, s *ClientStream, id uint32){
		"reset":   func(r *raw, _ *ClientStream, id uint32) { r.must(r.WriteRSTStream(id, h2.ErrCodeCancel)) },
		"GOAWAY":  func(r *raw, _ *ClientStream, _ uint32) { r.must(r.WriteGoAway(0, h2.ErrCodeNo, nil)) },
		"close":   func(r *raw, _ *ClientStream, _ uint32) { _ = r.Close() },
		"Abort":   func(_ *raw, s *ClientStream, _ uint32) { s.Abort(errors.New("test")) },
		"stalled": func(*raw, *ClientStream, uint32) {},
	} {
		t.Run(name, func(t *testing.T) {
			if name != "stalled" {
				blockedBodyEnds(t, Options{}, end)
				return
			}
			// A busy machine may stall for as long as the timeout before the body waits.
			for limit := 100 * time.Millisecond; !blockedBodyEnds(t, Options{StallTimeout: limit}, end); limit *= 4 {
				if limit > 10*time.Second {
					t.Fatal("the stream does not wait although its window is shut")
				}
			}
		})
	}
}

// blockedBodyEnds ends a stream whose body waits. It reports false if the stream's StallTimeout
// ended the stream before its body waited.
func blockedBodyEnds(t *testing.T, o Options, end func(r *raw, s *ClientStream, id uint32)) bool {
	client, nc := dial(t, o)
	r := rawServer(t, nc, h2.Setting{ID: h2.SettingInitialWindowSize, Val: 0})
	eventually(t, "the settings to arrive", client.in.gotSettings.Load)
	s := client.Open()
	defer s.Done()
	r.must(s.Send(post("/"), false))
	n, err := s.TryWrite([]byte("x"))
	if err != nil && o.StallTimeout > 0 {
		return false
	}
	if n != 0 || err != nil {
		t.Fatalf("%d bytes were sent, %v", n, err)
	}
	ready := make(chan struct{})
	if !s.AwaitRoom(false, func() { close(ready) }) {
		if o.StallTimeout > 0 {
			return false
		}
		t.Fatal("the stream does not wait although its window is shut")
	}
	end(r, s, r.takeRequest())
	await(t, ready, "the end of the wait")
	if _, err := s.TryWrite([]byte("x")); err == nil {
		t.Error("a write succeeds on a stream that has ended")
	}
	s.Done()
	client.mu.Lock()
	defer client.mu.Unlock()
	if client.blocked != 0 || client.out.bodyQueue.head != nil {
		t.Errorf("%d streams are blocked, %v waits", client.blocked, client.out.bodyQueue)
	}
	return true
}

// Streams that wait for the connection's window continue in turn.
func TestBlockedBodiesShareTheConnection(t *testing.T) {
	client, nc := dial(t, Options{})
	r := rawServer(t, nc)
	eventually(t, "the settings to arrive", client.in.gotSettings.Load)
	const streams, each = 5, 30_000 // together more than the window
	done := make(chan error, streams)
	for range streams {
		s := client.Open()
		defer s.Done()
		r.must(s.Send(post("/"), false))
		rest := make([]byte, each)
		var carry func()
		carry = func() {
			for {
				n, err := s.TryWrite(rest)
				if rest = rest[n:]; err != nil || len(rest) == 0 {
					done <- err
					return
				}
				if s.AwaitRoom(false, carry) {
					return
				}
			}
		}
		carry()
	}
	for received := 0; received < streams*each; {
		f, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := f.(*h2.DataFrame); ok {
			received += len(d.Data())
			r.must(r.WriteWindowUpdate(0, uint32(len(d.Data()))))
		}
	}
	for range streams {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
