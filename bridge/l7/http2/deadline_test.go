package http2

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// inBubble runs a served connection and its raw client in a synctest bubble,
// where time advances only when all goroutines wait.
func inBubble(t *testing.T, o Options, handler func(*ServerStream), script func(t *testing.T, r *raw, served <-chan error)) {
	t.Helper()
	inBubbleOf(t, o, handler, func(t *testing.T, r *raw, _ *ServerConn, served <-chan error) { script(t, r, served) })
}

// inBubbleOf is inBubble for a script that needs the connection's server.
func inBubbleOf(t *testing.T, o Options, handler func(*ServerStream), script func(t *testing.T, r *raw, c *ServerConn, served <-chan error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		mine, theirs := net.Pipe()
		defer mine.Close()
		c := NewServerConn(theirs, nil, o)
		served := make(chan error, 1)
		go func() { served <- c.Serve(handler) }()
		r := newRaw(t, mine)
		_ = mine.SetDeadline(time.Now().Add(24 * time.Hour))
		script(t, r, c, served)
		mine.Close()
		c.Close()
		synctest.Wait()
	})
}

// untilClosed reads frames until the connection is closed. It returns how long
// that took, and the code of the GOAWAY.
func (r *raw) untilClosed(answer func(f h2.Frame)) (time.Duration, h2.ErrCode) {
	start, code := time.Now(), h2.ErrCode(0xff)
	for {
		f, err := r.ReadFrame()
		if err != nil {
			return time.Since(start), code
		}
		if g, ok := f.(*h2.GoAwayFrame); ok {
			code = g.ErrCode
		}
		if answer != nil {
			answer(f)
		}
	}
}

func between(d, least, most time.Duration) bool { return d >= least && d <= most }

func TestAClientThatMakesNoProgressIsClosed(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(r *raw)
	}{
		{"no bytes", func(r *raw) {}},
		{"half a preface", func(r *raw) { _, _ = io.WriteString(r.Conn, h2.ClientPreface[:10]) }},
		{"no SETTINGS", func(r *raw) { r.preface() }},
		{"half SETTINGS", func(r *raw) { r.preface(); _, _ = r.Conn.Write([]byte{0, 0, 6, 4, 0, 0, 0, 0, 0, 0}) }},
		{"half a frame's header", func(r *raw) { r.hello(); _, _ = r.Conn.Write([]byte{0, 0}) }},
		{"half a frame", func(r *raw) { r.hello(); _, _ = r.Conn.Write([]byte{0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2}) }},
		{"half a header block", func(r *raw) {
			r.hello()
			r.must(r.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: r.encode(simple...)}))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, Options{HeaderTimeout: 10 * time.Second}, echo, func(t *testing.T, r *raw, served <-chan error) {
				go c.send(r)
				d, code := r.untilClosed(nil)
				if !between(d, 10*time.Second, 14*time.Second) || code != h2.ErrCodeNo {
					t.Errorf("closed after %v with %v", d, code)
				}
				if err := <-served; err == nil {
					t.Error("Serve returned no error")
				}
			})
		})
	}
}

// A header block that arrives a byte at a time hits the same limit as one that
// never ends.
func TestASlowHeadIsClosed(t *testing.T) {
	inBubble(t, Options{HeaderTimeout: 10 * time.Second}, echo, func(t *testing.T, r *raw, served <-chan error) {
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			r.hello()
			head := append([]byte{0, 0, 100, 1, 4, 0, 0, 0, 1}, make([]byte, 100)...)
			for i := range head {
				if _, err := r.Conn.Write(head[i : i+1]); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		if d, _ := r.untilClosed(nil); !between(d, 10*time.Second, 16*time.Second) {
			t.Errorf("closed after %v", d)
		}
		r.Conn.Close()
		<-sent
	})
}

func TestAnIdleClientIsClosed(t *testing.T) {
	inBubble(t, Options{IdleTimeout: time.Minute}, echo, func(t *testing.T, r *raw, served <-chan error) {
		go func() {
			r.hello()
			time.Sleep(30 * time.Second)
			r.headers(1, true, simple...)
		}()
		var pings int
		d, code := r.untilClosed(func(f h2.Frame) {
			if p, ok := f.(*h2.PingFrame); ok && !p.IsAck() {
				pings++
				go func() { _ = h2.NewFramer(r.Conn, nil).WritePing(true, p.Data) }()
			}
		})
		if !between(d, 90*time.Second, 97*time.Second) || code != h2.ErrCodeNo || pings == 0 {
			t.Errorf("closed after %v with %v and %d pings", d, code, pings)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// A client with an open stream is not idle, but it must answer pings.
func TestAVanishedClientIsDetected(t *testing.T) {
	gone := make(chan error, 1)
	inBubble(t, Options{}, func(s *ServerStream) {
		_, err := s.Read()
		gone <- err
	}, func(t *testing.T, r *raw, served <-chan error) {
		go func() {
			r.hello()
			r.headers(1, false, simplePost...)
		}()
		answers := 20
		d, _ := r.untilClosed(func(f h2.Frame) {
			if p, ok := f.(*h2.PingFrame); ok && answers > 0 {
				answers--
				go func() { _ = h2.NewFramer(r.Conn, nil).WritePing(true, p.Data) }()
			}
		})
		if !between(d, 20*30*time.Second, 25*60*time.Second) || answers != 0 {
			t.Errorf("closed after %v", d)
		}
		<-served
		var e *Error
		if err := <-gone; !errors.As(err, &e) || !errors.Is(err, errDead) {
			t.Error(err)
		}
	})
}

// A client that stops reading loses its connection.
func TestAClientThatStopsReadingIsClosed(t *testing.T) {
	gone := make(chan error, 1)
	inBubble(t, Options{StallTimeout: time.Minute}, func(s *ServerStream) {
		_ = s.Respond(ok(), false)
		_ = s.Flush()
		err := s.Write(make([]byte, 1<<20))
		gone <- err
	}, func(t *testing.T, r *raw, served <-chan error) {
		r.preface() // the client reads nothing from here on
		start := time.Now()
		go func() {
			_ = r.WriteSettings()
			r.headersQuietly(1, true, simple...)
		}()
		<-served
		if d := time.Since(start); !between(d, time.Minute, 80*time.Second) {
			t.Errorf("closed after %v", d)
		}
		if err := <-gone; !errors.Is(err, errStalled) {
			t.Error(err)
		}
	})
}

// The same deadlines hold for a server.
func TestAServerThatMakesNoProgressIsClosed(t *testing.T) {
	for _, c := range []struct {
		name        string
		answer      func(r *raw)
		least, most time.Duration
	}{
		{"no SETTINGS", func(*raw) {}, 10 * time.Second, 14 * time.Second},
		{"half a head", func(r *raw) {
			r.must(r.WriteSettings())
			r.must(r.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}}))
		}, 10 * time.Second, 14 * time.Second},
		{"no answer to a ping", func(r *raw) { r.must(r.WriteSettings()) }, 45 * time.Second, 60 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mine, theirs := net.Pipe()
				client := NewClientConn(mine, Options{})
				ran := make(chan error, 1)
				go func() { ran <- client.Run() }()
				go func() { _, _ = io.Copy(io.Discard, theirs) }()
				r := newRaw(t, theirs)
				_ = theirs.SetDeadline(time.Time{})
				s := client.Open()
				if err := s.Send(get("/"), true); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				go c.answer(r)
				var head message.Response
				err := s.Receive(&head)
				var e *Error
				if d := time.Since(start); !errors.As(err, &e) || !e.Connection || !between(d, c.least, c.most) {
					t.Errorf("%v after %v", err, d)
				}
				s.Done()
				<-ran
				theirs.Close()
			})
		})
	}
}

// A request that waits for room in the outbox fails with its connection, and
// may be retried.
func TestARequestThatWaitsForRoomFailsWithItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine, theirs := net.Pipe() // no goroutine reads theirs
		defer theirs.Close()
		client := NewClientConn(mine, Options{StallTimeout: time.Minute})
		ran := make(chan error, 1)
		go func() { ran <- client.Run() }()
		synctest.Wait()
		sent := make(chan error, 20)
		large := post("/")
		large.Fields = message.Fields{{Name: "x", Value: strings.Repeat("v", 10_000)}}
		for range cap(sent) {
			s := client.Open()
			defer s.Done()
			go func() { sent <- s.Send(large, true) }()
		}
		<-ran
		waited := 0
		for range cap(sent) {
			if err := <-sent; errors.Is(err, ErrUnprocessed) {
				waited++
			} else if err != nil {
				t.Error(err)
			}
		}
		if waited == 0 {
			t.Error("no request waited")
		}
	})
}

// An idle client connection is closed. So is an old one, when its streams have
// ended.
func TestIdleAndOldConnectionsAreClosed(t *testing.T) {
	for name, both := range map[string][2]Options{
		"idle":               {{IdleTimeout: 40 * time.Second}, {}},
		"old":                {{MaxAge: 40 * time.Second}, {}},
		"old, to the server": {{}, {MaxAge: 40 * time.Second}},
	} {
		o := both[0]
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mine, theirs := net.Pipe()
				var changes atomic.Int64
				o.Changed = func() { changes.Add(1) }
				client := NewClientConn(mine, o)
				ran := make(chan error, 1)
				go func() { ran <- client.Run() }()
				server := NewServerConn(theirs, nil, both[1])
				served := make(chan error, 1)
				go func() { served <- server.Serve(echo) }()
				start := time.Now()
				s := client.Open()
				if err := s.Send(post("/"), false); err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Second)
				synctest.Wait()
				if client.Err() != nil || client.CanOpen() != (name == "idle") {
					t.Errorf("Takes: %v, %v", client.CanOpen(), client.Err())
				}
				if err := s.End(nil); err != nil {
					t.Error(err)
				}
				if _, _, err := receive(s); err != nil {
					t.Error(err)
				}
				s.Done()
				if err := <-ran; err != nil {
					t.Error(err)
				}
				d := time.Since(start)
				if least := map[string]time.Duration{"idle": 90 * time.Second, "old": 50 * time.Second, "old, to the server": 50 * time.Second}[name]; !between(d, least, least+10*time.Second) {
					t.Errorf("closed after %v", d)
				}
				if err := <-served; err != nil {
					t.Error(err)
				}
				if client.Err() == nil || client.Open() != nil || changes.Load() == 0 {
					t.Errorf("after the end: %v, %d changes", client.Err(), changes.Load())
				}
			})
		})
	}
}

// Each part of a body's frame may take as long as StallTimeout.
func TestASlowBodyFrameGetsMoreTime(t *testing.T) {
	read := make(chan string, 1)
	inBubble(t, Options{HeaderTimeout: 10 * time.Second, StallTimeout: time.Minute}, func(s *ServerStream) {
		p, _ := s.Read()
		read <- string(p)
	}, func(t *testing.T, r *raw, served <-chan error) {
		go func() { _, _ = io.Copy(io.Discard, r.Conn) }()
		r.hello()
		r.headers(1, false, simplePost...)
		_, _ = r.Conn.Write([]byte{0, 0, 30, 0, 0, 0, 0, 0, 1})
		for range 30 {
			time.Sleep(time.Second)
			_, _ = r.Conn.Write([]byte("x"))
		}
		synctest.Wait()
		r.Conn.Close()
		<-served
		if got := <-read; got != strings.Repeat("x", 30) {
			t.Errorf("%q", got)
		}
	})
}
