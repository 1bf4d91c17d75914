package http2

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A shutdown serves every request that the client sent before it knew of the
// shutdown.
func TestShutdownServesRequestsInFlight(t *testing.T) {
	var release chan struct{}
	inBubbleOf(t, Options{}, func(s *ServerStream) {
		<-release
		echo(s)
	}, func(t *testing.T, r *raw, c *ServerConn, _ <-chan error) {
		release = make(chan struct{})
		r.hello()
		r.headers(1, true, simple...)
		goAway := func() *h2.GoAwayFrame {
			t.Helper()
			for {
				f, err := r.ReadFrame()
				r.must(err)
				if g, ok := f.(*h2.GoAwayFrame); ok {
					return g
				}
			}
		}
		c.Shutdown()
		c.Shutdown()
		if g := goAway(); g.LastStreamID != maxWindow || g.ErrCode != h2.ErrCodeNo {
			t.Errorf("first %v", g)
		}
		r.headers(3, true, simple...) // the client sent it before it read the GOAWAY
		r.must(r.WritePing(true, drainPing))
		if g := goAway(); g.LastStreamID != 3 || g.ErrCode != h2.ErrCodeNo {
			t.Errorf("second %v", g)
		}
		r.headers(5, true, simple...)
		if got := r.outcome(5); got != "RST REFUSED_STREAM" {
			t.Errorf("a stream after the last one: %s", got)
		}
		close(release)
		got := map[uint32]bool{}
		for len(got) < 2 {
			f, err := r.next()
			r.must(err)
			if f.Header().Flags.Has(h2.FlagDataEndStream) {
				got[f.Header().StreamID] = true
			}
		}
		for {
			if _, err := r.ReadFrame(); err != nil {
				if err != io.EOF {
					t.Error(err)
				}
				return
			}
		}
	})
}

// A connection that has served MaxRequests requests is shut down gracefully
// too.
func TestMaxRequestsShutsAConnectionDown(t *testing.T) {
	var release chan struct{}
	inBubble(t, Options{MaxRequests: 3}, func(s *ServerStream) {
		<-release
		echo(s)
	}, func(t *testing.T, r *raw, _ <-chan error) {
		release = make(chan struct{})
		r.hello()
		for id := uint32(1); id <= 7; id += 2 { // the last one was in flight
			r.headers(id, true, simple...)
		}
		var last []uint32
		for len(last) < 2 {
			f, err := r.ReadFrame()
			r.must(err)
			if g, ok := f.(*h2.GoAwayFrame); ok {
				if last = append(last, g.LastStreamID); len(last) == 1 {
					r.must(r.WritePing(true, drainPing))
				}
			}
		}
		if last[0] != maxWindow || last[1] != 7 {
			t.Errorf("GOAWAY with last stream %v", last)
		}
		r.headers(9, true, simple...)
		if got := r.outcome(9); got != "RST REFUSED_STREAM" {
			t.Errorf("a stream after the last one: %s", got)
		}
		close(release)
		for ended := 0; ; {
			f, err := r.ReadFrame()
			if err != nil {
				if err != io.EOF || ended != 4 {
					t.Errorf("%d requests were answered, and then %v", ended, err)
				}
				return
			}
			if f.Header().Flags.Has(h2.FlagDataEndStream) && f.Header().Type != h2.FrameSettings {
				ended++
			}
		}
	})
}

// A client that pauses while it reads the last response can still send, for example a
// WINDOW_UPDATE. If the connection were closed, the reset that answers it would destroy the
// rest of the response.
func TestAFinishedConnectionWaitsForASlowClient(t *testing.T) {
	inBubble(t, Options{MaxRequests: 1}, echo, func(t *testing.T, r *raw, ended <-chan error) {
		r.onlyRequest()
		for range 2 { // the time restarts with each frame
			time.Sleep(finishedLingerTime - time.Millisecond)
			r.must(r.WriteWindowUpdate(0, 100))
		}
		time.Sleep(finishedLingerTime + time.Millisecond)
		select {
		case <-ended:
		default:
			t.Error("the connection is still open although its client sends nothing")
		}
	})
}

// onlyRequest makes the one request that the connection accepts, and reads everything that
// follows.
func (r *raw) onlyRequest() {
	r.hello()
	r.headers(1, true, simple...)
	for done := false; !done; {
		f, err := r.ReadFrame()
		r.must(err)
		if g, ok := f.(*h2.GoAwayFrame); ok && g.LastStreamID == maxWindow {
			r.must(r.WritePing(true, drainPing))
		}
		done = f.Header().StreamID == 1 && f.Header().Flags.Has(h2.FlagDataEndStream)
	}
	go io.Copy(io.Discard, r.Conn) // the rest: a second GOAWAY
}

// A client cannot keep a finished connection open by sending one frame after the other.
func TestAFinishedConnectionDoesNotWaitForever(t *testing.T) {
	inBubble(t, Options{MaxRequests: 1}, echo, func(t *testing.T, r *raw, ended <-chan error) {
		r.onlyRequest()
		for start := time.Now(); time.Since(start) < maxLinger; time.Sleep(finishedLingerTime - time.Millisecond) {
			r.must(r.WriteWindowUpdate(0, 100))
		}
		time.Sleep(time.Millisecond)
		select {
		case <-ended:
		default:
			t.Errorf("the connection is still open after %v", maxLinger)
		}
	})
}

func TestAnIdleConnectionIsShutDownAtOnce(t *testing.T) {
	c, s := connected(t, Options{}, Options{}, echo)
	st := c.Open()
	_ = st.Send(get("/"), true)
	if _, _, err := receive(st); err != nil {
		t.Error(err)
	}
	st.Done()
	s.Shutdown()
	eventually(t, "the client to notice", func() bool { return !c.CanOpen() && c.Err() != nil })
}

// A request that the server reports as not processed may be retried. Any other
// may not.
func TestUnprocessedRequestsAreRecognized(t *testing.T) {
	c, nc := dial(t, Options{})
	r := rawServer(t, nc)
	open := func() *ClientStream {
		s := c.Open()
		if err := s.Send(get("/"), true); err != nil {
			t.Fatal(err)
		}
		r.takeRequest()
		return s
	}
	end := func(s *ClientStream) error {
		_, _, err := receive(s)
		s.Done()
		return err
	}
	refused, reset, before, behind := open(), open(), open(), open()
	reserved := c.Open()
	r.must(r.WriteRSTStream(1, h2.ErrCodeRefusedStream))
	if err := end(refused); !errors.Is(err, ErrUnprocessed) {
		t.Errorf("refused: %v", err)
	}
	r.must(r.WriteRSTStream(3, h2.ErrCodeInternal))
	if err := end(reset); err == nil || errors.Is(err, ErrUnprocessed) {
		t.Errorf("reset: %v", err)
	}
	r.must(r.WriteGoAway(maxWindow, h2.ErrCodeNo, nil))
	r.must(r.WriteGoAway(5, h2.ErrCodeNo, nil))
	if err := end(behind); !errors.Is(err, ErrUnprocessed) {
		t.Errorf("after the last stream: %v", err)
	}
	if err := reserved.Send(get("/"), true); !errors.Is(err, ErrUnprocessed) {
		t.Errorf("sent after GOAWAY: %v", err)
	}
	reserved.Done()
	if c.CanOpen() || c.Open() != nil || c.Room() != 0 {
		t.Error("the connection accepts further requests")
	}
	r.headers(5, true, ":status: 200")
	if err := end(before); err != nil {
		t.Errorf("before the last stream: %v", err)
	}
	eventually(t, "the end", func() bool { return c.Err() != nil })
}

// A request whose body was sent in part is unprocessed too if the server says
// so. A request that the server has begun to answer is not.
func TestAPartlyAnsweredRequestWasProcessed(t *testing.T) {
	for _, goAway := range []bool{false, true} {
		for _, answered := range []string{"", "103", "200"} {
			c, nc := dial(t, Options{})
			r := rawServer(t, nc)
			s := c.Open()
			if err := s.Send(post("/"), false); err != nil {
				t.Fatal(err)
			}
			if err := s.Write([]byte("begun")); err != nil || s.Flush() != nil {
				t.Fatal(err)
			}
			r.takeRequest()
			if answered != "" {
				r.headers(1, false, ":status: "+answered)
				var head message.Response
				if err := s.Receive(&head); err != nil {
					t.Fatal(err)
				}
			}
			if goAway {
				r.must(r.WriteGoAway(0, h2.ErrCodeNo, nil))
			} else {
				r.must(r.WriteRSTStream(1, h2.ErrCodeRefusedStream))
			}
			_, _, err := receive(s)
			if errors.Is(err, ErrUnprocessed) != (answered == "") {
				t.Errorf("GOAWAY %v after %q: %v", goAway, answered, err)
			}
			if wrote := s.Write([]byte("x")); errors.Is(wrote, ErrUnprocessed) != (answered == "") {
				t.Errorf("GOAWAY %v after %q: Write returned %v", goAway, answered, wrote)
			}
			s.Done()
		}
	}
}

// Each stream of a failed connection returns the connection's error, and reports
// whether its request was sent.
func TestStreamsReportWhyTheirConnectionFailed(t *testing.T) {
	mine, theirs := pair(t)
	broken := &brokenConn{Conn: mine, err: errTest}
	c := NewClientConn(broken, Options{})
	ran := make(chan error, 1)
	go func() { ran <- c.Run() }()
	s := c.Open()
	if err := s.Send(get("/"), true); err != nil {
		t.Fatal(err)
	}
	r := rawServer(t, theirs)
	r.takeRequest()
	broken.broken.Store(true)
	theirs.Close()
	if _, _, err := receive(s); !errors.Is(err, errTest) || errors.Is(err, ErrUnprocessed) {
		t.Errorf("sent: %v", err)
	}
	s.Done()
	if err := <-ran; !errors.Is(err, errTest) {
		t.Error(err)
	}
	if c.Open() != nil {
		t.Error("the connection accepts further requests")
	}
}

// A brokenConn's Read fails with err once broken is set.
type brokenConn struct {
	net.Conn
	err    error
	broken atomic.Bool
}

func (c *brokenConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.broken.Load() {
		return 0, c.err
	}
	return n, err
}

func TestARequestOverADeadConnectionWasNotSent(t *testing.T) {
	mine, theirs := pair(t)
	c := NewClientConn(mine, Options{})
	s := c.Open()
	theirs.Close()
	_ = c.Run()
	if err := s.Send(get("/"), true); !errors.Is(err, ErrUnprocessed) || !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	s.Done()
}

// A client never opens more streams than the server allows, even if the limit
// changes.
func TestTheServersStreamLimitIsKept(t *testing.T) {
	var changes atomic.Int64
	c, nc := dial(t, Options{MaxStreams: 5, Changed: func() { changes.Add(1) }})
	r := rawServer(t, nc, h2.Setting{ID: h2.SettingMaxConcurrentStreams, Val: 2})
	eventually(t, "the settings", func() bool { return c.Room() == 2 })
	a, b := c.Open(), c.Open()
	if a == nil || b == nil || c.Open() != nil || c.Streams() != 2 {
		t.Error("opened more than two streams")
	}
	before := changes.Load()
	a.Done()
	if changes.Load() == before || c.Room() != 1 {
		t.Error("Changed was not called for the new room")
	}
	r.must(r.WriteSettings(h2.Setting{ID: h2.SettingMaxConcurrentStreams, Val: 100}))
	eventually(t, "the settings", func() bool { return c.Room() == 4 })
	r.must(r.WriteSettings(h2.Setting{ID: h2.SettingMaxConcurrentStreams, Val: 0}))
	eventually(t, "the settings", func() bool { return c.Room() == 0 })
	if c.Open() != nil {
		t.Error("opened a stream that is not allowed")
	}
	b.Done()
}

func TestExtendedConnectNeedsTheServersSetting(t *testing.T) {
	connect := &message.Request{Method: "CONNECT", Protocol: "websocket", Scheme: "https", Authority: "a.test", Target: "/chat", Length: -1}
	c, _ := connected(t, Options{}, Options{}, echo)
	s := c.Open()
	if err := s.Send(connect, false); !errors.Is(err, ErrNoExtendedConnect) {
		t.Error(err)
	}
	s.Done()

	c, _ = connected(t, Options{}, Options{ExtendedConnect: true}, echo)
	s = c.Open()
	defer s.Done()
	if !s.Connects() {
		t.Error("Connects returned false")
	}
	if err := s.Send(connect, false); err != nil {
		t.Fatal(err)
	}
	if err := s.Write([]byte("frame")); err != nil || s.Flush() != nil {
		t.Fatal(err)
	}
	var head message.Response
	if err := s.Receive(&head); err != nil || head.Status != 200 {
		t.Fatalf("%+v %v", head, err)
	}
	if p, err := s.Read(); string(p) != "frame" || err != nil {
		t.Errorf("%q %v", p, err)
	}
	_ = s.End(nil)
	if p, err := readAll(s); len(p) != 0 || err != nil {
		t.Errorf("%q %v", p, err)
	}
}

// Connects returns when the settings can no longer arrive.
func TestConnectsWaitsForTheServersSettings(t *testing.T) {
	for _, c := range []struct {
		name string
		then func(s *ClientStream, nc net.Conn)
		want bool
	}{
		{"allowed", func(_ *ClientStream, nc net.Conn) {
			rawServer(t, nc, h2.Setting{ID: h2.SettingEnableConnectProtocol, Val: 1})
		}, true},
		{"not allowed", func(_ *ClientStream, nc net.Conn) { rawServer(t, nc) }, false},
		{"the connection ends", func(_ *ClientStream, nc net.Conn) { nc.Close() }, false},
		{"the stream is aborted", func(s *ClientStream, _ net.Conn) { s.Abort(errTest) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, nc := dial(t, Options{})
			s := client.Open()
			defer s.Done()
			connects := make(chan bool, 1)
			go func() { connects <- s.Connects() }()
			eventually(t, "Connects to wait", func() bool {
				client.mu.Lock()
				defer client.mu.Unlock()
				return client.out.room.head == &s.stream
			})
			c.then(s, nc)
			if got := <-connects; got != c.want {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestAHeadOverTheServersLimitIsNotSent(t *testing.T) {
	c, nc := dial(t, Options{})
	rawServer(t, nc, h2.Setting{ID: h2.SettingMaxHeaderListSize, Val: 500}, h2.Setting{ID: h2.SettingMaxConcurrentStreams, Val: 7})
	eventually(t, "the settings", func() bool { return c.Room() == 7 })
	s := c.Open()
	defer s.Done()
	q := get("/")
	q.Fields = message.Fields{{Name: "x", Value: string(make([]byte, 500))}}
	if err := s.Send(q, true); !errors.Is(err, ErrHeadTooLarge) {
		t.Error(err)
	}
}

// A connection that is retired before it has sent anything ends silently: any
// other bytes would look like a broken preface.
func TestAConnectionRetiredAtOnceSendsNothing(t *testing.T) {
	mine, theirs := pair(t)
	c := NewClientConn(mine, Options{})
	c.Retire()
	ran := make(chan error, 1)
	go func() { ran <- c.Run() }()
	if p, err := io.ReadAll(theirs); len(p) > 0 || err != nil {
		t.Errorf("%q %v", p, err)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
