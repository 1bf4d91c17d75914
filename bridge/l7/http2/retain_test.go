package http2

import "testing"

// Bytes that the reader of a body retains fill the stream's window until the reader
// releases them. The window grows for them, within the bound of the connection.
func TestTheWindowGrowsForRetainedBytes(t *testing.T) {
	type state struct {
		retained, window, size, grown int
		refused                       bool
	}
	read, release, states := make(chan bool), make(chan struct{}), make(chan state)
	nc, _ := serve(t, Options{}, func(s *ServerStream) {
		report := func(refused bool) {
			s.c.mu.Lock()
			now := state{s.retained, s.window + s.consumed + s.viewed, s.size, s.c.grown, refused}
			s.c.mu.Unlock()
			states <- now
		}
		for range read {
			if _, err := s.Read(); err != nil {
				t.Error(err)
			}
			may := s.MayRetain(false)
			if may {
				s.Retain()
			}
			report(!may)
		}
		s.Release()
		report(false)
		<-release
	})
	defer close(release)
	r := rawClient(t, nc)
	r.headers(1, false, simplePost...)
	sent, most := 0, state{}
	for !most.refused && sent < 2*maxGrowth {
		r.must(r.WriteData(1, false, make([]byte, maxFrame-1))) // never more than a frame is left of the window
		sent += maxFrame - 1
		read <- true
		now := <-states
		switch {
		case now.retained > now.size-maxFrame:
			t.Fatalf("%d bytes are retained in a window of %d", now.retained, now.size)
		case now.window < maxFrame:
			t.Fatalf("a window of %d bytes is left, and %d are retained", now.window, now.retained)
		case now.grown > maxGrowth:
			t.Fatalf("the windows have grown by %d bytes", now.grown)
		}
		most = now
	}
	if !most.refused || most.retained < maxGrowth/2 {
		t.Errorf("%d bytes of %d are retained", most.retained, sent)
	}
	close(read)
	if now := <-states; now.retained != 0 || now.window < now.size-maxFrame {
		t.Errorf("after the release: %+v", now)
	}
}

// If all of the window may be filled, it is, until the reader releases the bytes.
func TestRetainedBytesExhaustTheWindow(t *testing.T) {
	results, release := make(chan bool, 2), make(chan struct{})
	nc, _ := serve(t, Options{}, func(s *ServerStream) {
		for read := 0; read < firstWindow; {
			p, err := s.Read()
			if err != nil {
				t.Error(err)
				break
			}
			read += len(p)
			if !s.MayRetain(true) {
				t.Error("not all of the window may be retained")
			}
			s.Retain()
		}
		results <- s.Exhausted()
		s.Release()
		results <- s.Exhausted()
		<-release
	})
	defer close(release)
	r := rawClient(t, nc)
	r.headers(1, false, simplePost...)
	for left := firstWindow; left > 0; {
		n := min(left, maxFrame)
		r.must(r.WriteData(1, false, make([]byte, n)))
		left -= n
	}
	if !<-results {
		t.Error("the window is not exhausted when all of it is retained")
	}
	if <-results {
		t.Error("the window is still exhausted when all of it is released")
	}
}
