package http2

import (
	"strings"
	"testing"

	h2 "golang.org/x/net/http2"
)

// A stream is refused while the others hold as much memory as a connection may. It
// is accepted when one of them has ended.
func TestStreamsThatHoldTooMuchAreRefused(t *testing.T) {
	release := make(chan struct{})
	nc, s := serve(t, Options{MaxMemory: 100 << 10, StreamMemory: 10 << 10}, func(s *ServerStream) {
		if s.Request().Method == "POST" {
			<-release
		}
		_ = s.Respond(ok(), true)
	})
	r := rawClient(t, nc)
	large := with(simplePost, "x: "+strings.Repeat("a", 10_000), "y: "+strings.Repeat("b", 5_000))
	for id := uint32(1); id < 9; id += 2 { // 4 of 25 KiB
		r.headers(id, true, large...)
	}
	r.headers(9, true, simple...)
	if got := r.outcome(9); got != "RST "+h2.ErrCodeRefusedStream.String() {
		t.Error(got)
	}
	release <- struct{}{}
	eventually(t, "a stream to end", func() bool { return s.Running() == 3 })
	r.headers(11, true, simple...)
	if got := r.outcome(11); !strings.HasPrefix(got, "204") && !strings.HasPrefix(got, "200") {
		t.Error(got)
	}
	close(release)
	eventually(t, "all streams to end", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.running == 0 && s.memory == 0
	})
}

// A stream whose window is smaller than what an unread response holds counts for more.
func TestStreamsWithSmallWindowsCountForMore(t *testing.T) {
	release := make(chan struct{})
	nc, s := serve(t, Options{MaxMemory: 100 << 10, StreamMemory: 10 << 10, UnreadMemory: 30 << 10}, func(s *ServerStream) {
		<-release
		_ = s.Respond(ok(), true)
	})
	r := rawClient(t, nc)
	next := uint32(1)
	accepts := func(window uint32, want int) {
		t.Helper()
		r.must(r.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: window}))
		running := s.Running()
		for range want + 1 {
			r.headers(next, true, simple...)
			next += 2
		}
		if got := r.outcome(next - 2); got != "RST "+h2.ErrCodeRefusedStream.String() {
			t.Errorf("window %d: %s", window, got)
		}
		if got := s.Running() - running; got != want {
			t.Errorf("window %d: %d streams are served, want %d", window, got, want)
		}
	}
	accepts(0, 2)     // each takes 40 KiB and its head
	accepts(1<<20, 1) // it takes 10 KiB and its head
	close(release)
	eventually(t, "all streams to end", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.running == 0 && s.memory == 0
	})
}

// A single request is never refused because of its size.
func TestASingleRequestIsNeverTooLarge(t *testing.T) {
	nc, s := serve(t, Options{MaxMemory: 1}, func(s *ServerStream) { _ = s.Respond(ok(), true) })
	r := rawClient(t, nc)
	for id := uint32(1); id < 5; id += 2 {
		r.headers(id, true, simple...)
		if got := r.outcome(id); strings.HasPrefix(got, "RST") {
			t.Error(got)
		}
		eventually(t, "the handler to return", func() bool { return s.Running() == 0 })
	}
}

// Trailers count too, until the handlers return.
func TestTrailersThatHoldTooMuchAreRefused(t *testing.T) {
	release := make(chan struct{})
	nc, s := serve(t, Options{MaxMemory: 100 << 10, StreamMemory: 10 << 10}, func(s *ServerStream) {
		<-release
		_ = s.Respond(ok(), true)
	})
	r := rawClient(t, nc)
	for id := uint32(1); id < 9; id += 2 { // 4 of 10 KiB
		r.headers(id, false, simplePost...)
	}
	trailer := []string{"x: " + strings.Repeat("a", 12_000), "y: " + strings.Repeat("e", 12_000)}
	for id := uint32(1); id < 7; id += 2 {
		r.headers(id, true, trailer...)
	}
	if got := r.outcome(5); got != "RST "+h2.ErrCodeEnhanceYourCalm.String() {
		t.Error(got)
	}
	close(release)
	for answered := map[uint32]bool{}; !answered[1] || !answered[3]; { // in either order
		f, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *h2.MetaHeadersFrame:
			answered[f.StreamID] = true
		case *h2.RSTStreamFrame:
			t.Fatalf("stream %d: RST %v", f.StreamID, f.ErrCode)
		}
	}
	r.must(r.WriteRSTStream(7, h2.ErrCodeCancel))
	eventually(t, "all streams to end", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.running == 0 && s.memory == 0
	})
}

// A server cannot make the gateway hold many interim responses that were not forwarded
// yet.
func TestUnreadInterimResponsesAreBounded(t *testing.T) {
	client, nc := dial(t, Options{})
	r := rawServer(t, nc)
	s := client.Open()
	defer s.Done()
	if err := s.Send(get("/"), true); err != nil {
		t.Fatal(err)
	}
	id := r.takeRequest()
	for range 3 {
		r.headers(id, false, ":status: 103", "link: "+strings.Repeat("a", 12_000), "x: "+strings.Repeat("e", 12_000))
	}
	if got := r.outcome(id); got != "RST "+h2.ErrCodeEnhanceYourCalm.String() {
		t.Error(got)
	}
}

// A malformed request costs the peer as much as several that were reset.
func TestAMalformedRequestCostsMore(t *testing.T) {
	nc, s := serve(t, Options{}, func(s *ServerStream) { _ = s.Respond(ok(), true) })
	r := rawClient(t, nc)
	for id := uint32(1); id < 6; id += 2 {
		r.headers(id, true, ":method: GET")
		if got := r.outcome(id); got != "RST "+h2.ErrCodeProtocol.String() {
			t.Fatal(got)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.abuse.budgets[streamsAccount]; b.left > b.full-3*malformedCost+1 { // time may have added 1
		t.Errorf("%d of %d are left after 3 malformed requests", b.left, b.full)
	}
}
