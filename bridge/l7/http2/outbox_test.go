package http2

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
)

// A gatedConn's writes wait until the gate opens. Then they fail with err if it
// is not nil.
type gatedConn struct {
	net.Conn
	gate    chan struct{}
	waiting sync.Once
	waits   chan struct{} // closed when a write waits
	err     error
}

func newGatedConn(nc net.Conn, err error) *gatedConn {
	return &gatedConn{Conn: nc, gate: make(chan struct{}), waits: make(chan struct{}), err: err}
}

func (g *gatedConn) Write(p []byte) (int, error) {
	g.waiting.Do(func() { close(g.waits) })
	<-g.gate
	if g.err != nil {
		return 0, g.err
	}
	return g.Conn.Write(p)
}

// When a write fails, requests whose frames are still queued fail with
// ErrUnprocessed, and no buffer is changed after it was freed.
func TestAFailedWriteVoidsQueuedFrames(t *testing.T) {
	for _, failure := range []error{syscall.ECONNRESET, syscall.EPIPE, errTest} {
		mine, _ := pair(t)
		nc := newGatedConn(mine, failure)
		c := NewClientConn(nc, Options{})
		ran := make(chan struct{})
		go func() { defer close(ran); _ = c.Run() }()
		await(t, nc.waits, "the preface to be written") // the write never returns
		var waiting []*ClientStream
		for range 50 {
			s := c.Open()
			if err := s.Send(post("/"), false); err != nil {
				t.Fatal(err)
			}
			if err := s.Write(make([]byte, 500)); err != nil {
				t.Fatal(err)
			}
			waiting = append(waiting, s)
		}
		half := len(waiting) / 2
		var all sync.WaitGroup
		for _, s := range waiting[:half] { // some end while the write fails
			all.Go(func() { _ = s.End(nil) })
		}
		close(nc.gate)
		all.Wait()
		eventually(t, "the failure to be noticed", func() bool { return !c.CanOpen() })
		for i, s := range waiting {
			if err := s.End(nil); i >= half && !errors.Is(err, ErrUnprocessed) {
				t.Errorf("%v: End returned %v", failure, err)
			}
			if _, _, err := receive(s); !errors.Is(err, ErrUnprocessed) {
				t.Errorf("%v: the response ended with %v", failure, err)
			}
			s.Done()
		}
		c.Close()
		await(t, ran, "Run to return")
	}
}

func TestTokensAreVoidWhenTheirBatchHasLeftOrWasDropped(t *testing.T) {
	var mu sync.Mutex
	var workers sync.WaitGroup
	mine, theirs := pair(t)
	var o outbox
	o.init(mine, &mu, &workers, func() int64 { return 1 })
	o.failed, o.notifyEnds = func(error) []streamEnd { return nil }, func([]streamEnd) {}
	mu.Lock()
	first := o.data(1, []byte("x"), false)
	if !o.waits(first) || !o.endStream(first) {
		t.Error("a queued frame cannot be changed")
	}
	o.drop()
	if o.waits(first) || o.endStream(first) {
		t.Error("a dropped frame can be changed")
	}
	second := o.data(3, []byte("y"), false)
	o.startSending()
	for o.sending {
		o.changed.Wait()
	}
	if o.waits(second) || o.endStream(second) {
		t.Error("a sent frame can be changed")
	}
	f, err := h2.NewFramer(nil, theirs).ReadFrame()
	if err != nil || f.Header().StreamID != 3 || f.Header().Flags != 0 {
		t.Errorf("%v %v", f, err)
	}
	third := o.data(5, nil, false)
	o.abandon(errTest)
	if fourth := o.data(7, nil, true); o.waits(third) || o.waits(fourth) || len(o.buf) > 0 || o.waits(token{}) {
		t.Error("an abandoned outbox holds frames")
	}
	mu.Unlock()
	workers.Wait()
}

// While a peer does not read its replies, the server does not read from the
// peer. So the queue of replies is bounded for any input.
func TestUnreadRepliesAreBounded(t *testing.T) {
	for _, c := range []struct {
		name  string
		drain bool
		round func(r *raw, i int) error
	}{
		{"PING", false, func(r *raw, i int) error { return r.WritePing(false, [8]byte{}) }},
		{"SETTINGS", false, func(r *raw, i int) error { return r.WriteSettings() }},
		{"HEADERS after the last GOAWAY", true, func(r *raw, i int) error {
			return r.WriteHeaders(h2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: r.encode(simple...), EndHeaders: true})
		}},
		{"malformed requests", false, func(r *raw, i int) error {
			return r.WriteHeaders(h2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: r.encode(":method: GET"), EndHeaders: true})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mine, theirs := pair(t)
			nc := newGatedConn(theirs, nil)
			s := NewServerConn(nc, nil, Options{})
			served := make(chan struct{})
			hold := make(chan struct{})
			go func() { defer close(served); _ = s.Serve(func(*ServerStream) { <-hold }) }()
			r := rawClient(t, mine)
			first := 0
			if c.drain {
				r.headers(1, true, simple...) // keeps the connection open
				s.Shutdown()
				r.must(r.WritePing(true, drainPing))
				first = 1
			}
			await(t, nc.waits, "a write")
			s.mu.Lock()
			s.abuse.budgets[streamsAccount] = budget{left: 1 << 40, full: 1 << 40} // the bound must not depend on budgets
			s.abuse.budgets[framesAccount] = budget{left: 1 << 40, full: 1 << 40}
			s.mu.Unlock()
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for i := first; c.round(r, i) == nil; i++ {
				}
			}()
			held := func() int {
				s.mu.Lock()
				defer s.mu.Unlock()
				return len(s.out.buf)
			}
			eventually(t, "the reader to stop", func() bool { return s.out.repliesFull.Load() })
			if n := held(); n > replyLimit+1000 {
				t.Errorf("%d bytes of replies wait", n)
			}
			if c.drain {
				s.Close()
			}
			close(nc.gate) // reading resumes when the replies are read
			if !c.drain {
				go func() { _, _ = mine.Read(make([]byte, 1<<20)) }()
				eventually(t, "the reader to resume", func() bool { return !s.out.repliesFull.Load() })
			}
			close(hold)
			s.Close()
			await(t, served, "Serve to return")
			mine.Close()
			await(t, sent, "the sender to end")
		})
	}
}

// A panic in one of the connection's goroutines ends only that connection or
// stream.
func TestAPanicEndsOnlyItsStreamOrConnection(t *testing.T) {
	type report struct {
		value any
		stack int
	}
	reports := make(chan report, 10)
	o := Options{Panicked: func(v any, stack []byte) { reports <- report{v, len(stack)} }}
	reported := func() {
		t.Helper()
		select {
		case r := <-reports:
			if r.value != "test" || r.stack == 0 {
				t.Errorf("reported: %+v", r)
			}
		case <-time.After(testTimeout):
			t.Error("the panic was not reported")
		}
	}
	t.Run("handler", func(t *testing.T) {
		nc, _ := serve(t, o, func(s *ServerStream) {
			if s.Request().Method == "POST" {
				panic("test")
			}
			echo(s)
		})
		r := rawClient(t, nc)
		r.headers(1, true, simplePost...)
		if got := r.outcome(1); got != "RST INTERNAL_ERROR" {
			t.Error(got)
		}
		reported()
		r.headers(3, true, simple...)
		if got := r.outcome(3); got != "200 /  yes" {
			t.Error(got)
		}
	})
	for _, where := range []string{"reading", "writing"} {
		t.Run(where, func(t *testing.T) {
			mine, theirs := pair(t)
			c := NewServerConn(panickingConn{theirs, where}, nil, o)
			served := make(chan error, 1)
			go func() { served <- c.Serve(echo) }()
			_, _ = mine.Write([]byte(h2.ClientPreface))
			if err := <-served; !errors.Is(err, errPanic) {
				t.Error(err)
			}
			reported()
		})
	}
}

type panickingConn struct {
	net.Conn
	where string
}

func (c panickingConn) Read(p []byte) (int, error) {
	if c.where == "reading" {
		panic("test")
	}
	return c.Conn.Read(p)
}

func (c panickingConn) Write(p []byte) (int, error) {
	if c.where == "writing" {
		panic("test")
	}
	return c.Conn.Write(p)
}
