package splice

import (
	"io"
	"net"
	"testing"
	"time"
)

// The splice carries bytes that a side sends during a pause, and the end of its stream,
// after the pause.
func TestAPauseLosesNothing(t *testing.T) {
	e, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, ofUpstream := range []bool{false, true} {
		client, clientFar := tcpPair(t)
		upstream, upstreamFar := tcpPair(t)
		done := make(chan Result, 1)
		s := e.Start(client, upstream, Options{Idle: time.Hour, Linger: time.Hour, Done: func(r Result) { done <- r }})
		from, to, x := clientFar, upstreamFar, &s.client
		if ofUpstream {
			from, to, x = upstreamFar, clientFar, &s.upstream
		}
		for _, text := range []string{"a", "bc", "def"} {
			s.mu.Lock()
			s.pause(x)
			paused := x.paused
			s.mu.Unlock()
			if !paused {
				t.Error("the side was not paused")
			}
			if _, err := io.WriteString(from, text); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(text))
			if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
				t.Errorf("%q, %v", got, err)
			}
		}
		s.mu.Lock()
		s.pause(x)
		s.mu.Unlock()
		_ = from.(*net.TCPConn).CloseWrite()
		if n, err := to.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%d bytes, %v", n, err)
		}
		_ = to.(*net.TCPConn).CloseWrite()
		if r := <-done; r.Ending != Closed {
			t.Errorf("the splice ended with %q", r.Ending)
		}
		from.Close()
		to.Close()
	}
}
