package http2

import (
	"testing"

	h2 "golang.org/x/net/http2"
)

// What the reader of a body keeps fills the stream's window, until it is released.
func TestTheWindowIsShutForRetainedBytes(t *testing.T) {
	read, release := make(chan int), make(chan struct{})
	nc, s := serve(t, Options{}, func(s *ServerStream) {
		total := 0
		for range read {
			p, err := s.Read()
			if err != nil {
				t.Error(err)
			}
			s.Retain(len(p))
			total += len(p)
		}
		s.Release()
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
	// Too much for Retain: the window reopens for what exceeds it.
	r.must(r.WriteData(1, false, make([]byte, firstWindow-3*maxFrame)))
	read <- 3
	eventually(t, "the bytes to arrive", func() bool { return window() == 0 })
	close(read)
	eventually(t, "the window to reopen", func() bool { return window() >= maxRetained-maxFrame })
	close(release)
	for {
		f, err := r.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := f.(*h2.WindowUpdateFrame); ok && f.StreamID == 1 {
			return
		}
	}
}
