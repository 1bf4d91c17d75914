package http2

import "testing"

// Bytes that the reader of a body retains keep the stream's window shut until the
// reader releases them.
func TestTheWindowIsShutForRetainedBytes(t *testing.T) {
	read, released, release := make(chan int), make(chan struct{}), make(chan struct{})
	nc, s := serve(t, Options{}, func(s *ServerStream) {
		for range read {
			p, err := s.Read()
			if err != nil {
				t.Error(err)
			}
			if len(p) > 0 {
				s.Retain(false)
			}
		}
		s.Release()
		close(released)
		<-release
	})
	r := rawClient(t, nc)
	r.headers(1, false, simplePost...)
	window := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.streams[1].window
	}
	for i := range 3 {
		r.must(r.WriteData(1, false, make([]byte, maxFrame)))
		read <- i
		eventually(t, "the bytes to arrive", func() bool { return window() == firstWindow-(i+1)*maxFrame })
	}
	// Retain ignores a view beyond its limit, so the window reopens for these
	// bytes.
	r.must(r.WriteData(1, false, make([]byte, firstWindow-3*maxFrame)))
	read <- 3
	eventually(t, "the bytes to arrive", func() bool { return window() == 0 })
	read <- 4
	eventually(t, "the window to reopen", func() bool { return window() >= firstWindow-3*maxFrame })
	credit := func() int { // the window, and the bytes read but not yet added to it
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.streams[1].window + s.streams[1].consumed
	}
	before := credit()
	r.must(r.WriteData(1, false, []byte("x")))
	close(read)
	await(t, released, "the bytes to be released")
	if after := credit(); after < before+maxRetained-1 {
		t.Errorf("the window can be %d bytes, and %d before 48 KiB were released", after, before)
	}
	close(release)
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
			s.Retain(true)
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
