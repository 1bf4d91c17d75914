package http2

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// An unread stream takes no more than its window, and the other streams
// continue. That holds for any number of unread streams.
func TestStalledReadersDelayNoOtherStream(t *testing.T) {
	for _, role := range []string{"server", "client"} {
		t.Run(role, func(t *testing.T) {
			release := make(chan struct{})
			var written [60]atomic.Int64
			fill := func(i int, write func([]byte) error) {
				for p := make([]byte, 9_000); write(p) == nil; {
					written[i].Add(int64(len(p)))
				}
			}
			var next atomic.Int64
			c, _ := connected(t, Options{}, Options{}, func(s *ServerStream) {
				switch {
				case s.Request().Target == "/echo":
					echo(s)
				case role == "server":
					<-release
				default:
					_ = s.Respond(ok(), false)
					fill(int(next.Add(1)-1), s.Write)
				}
			})
			for i := range written {
				s := c.Open()
				defer s.Done()
				if err := s.Send(post("/stall"), false); err != nil {
					t.Fatal(err)
				}
				_ = s.Flush()
				if role == "server" {
					go fill(i, s.Write)
				}
			}
			full := func() bool {
				for i := range written {
					if written[i].Load() < firstWindow-9_000 {
						return false
					}
				}
				return true
			}
			eventually(t, "the windows to be used up", full)
			s := c.Open()
			defer s.Done()
			body := strings.Repeat("hello", 100_000)
			go func() {
				_ = s.Send(post("/echo"), false)
				_ = s.Write([]byte(body))
				_ = s.End(nil)
			}()
			if _, got, err := receive(s); got != body || err != nil {
				t.Errorf("%d bytes of %d, %v", len(got), len(body), err)
			}
			for i := range written {
				if n := written[i].Load(); n > firstWindow {
					t.Errorf("%d unread bytes were accepted", n)
				}
			}
			close(release)
		})
	}
}

// The window of a stream whose reader keeps up grows. The growth of all streams
// together is bounded.
func TestWindowsGrowWithinBounds(t *testing.T) {
	c, s := connected(t, Options{}, Options{}, func(s *ServerStream) {
		if _, err := readAll(s); err == nil {
			_ = s.Respond(&message.Response{Status: 204}, true)
		}
	})
	const streams = 8
	all := make(chan error, streams)
	for range streams {
		go func() {
			st := c.Open()
			defer st.Done()
			err := st.Send(post("/"), false)
			for i := 0; i < 100 && err == nil; i++ {
				err = st.Write(make([]byte, 64<<10))
				s.mu.Lock()
				if s.grown > maxGrowth {
					t.Errorf("windows have grown by %d", s.grown)
				}
				s.mu.Unlock()
			}
			if err == nil {
				err = st.End(nil)
			}
			if err == nil {
				err = st.Receive(&message.Response{})
			}
			all <- err
		}()
	}
	for range streams {
		if err := <-all; err != nil {
			t.Error(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grown != 0 {
		t.Errorf("windows are still grown by %d", s.grown)
	}
}

// The window reopens only as the received data is read.
func TestTheWindowReopensAsDataIsRead(t *testing.T) {
	read := make(chan int)
	nc, _ := serve(t, Options{}, func(s *ServerStream) {
		for n := range read {
			for n > 0 {
				p, err := s.Read()
				if err != nil {
					return
				}
				n -= len(p)
			}
		}
	})
	defer close(read)
	r := rawClient(t, nc)
	r.headers(1, false, simplePost...)
	for left := firstWindow; left > 0; left -= min(left, 10_000) {
		r.must(r.WriteData(1, false, make([]byte, min(left, 10_000))))
	}
	updates := make(chan uint32, 100)
	go func() {
		defer close(updates)
		for {
			f, err := r.ReadFrame()
			if err != nil {
				return
			}
			if w, ok := f.(*h2.WindowUpdateFrame); ok && w.StreamID == 1 {
				updates <- w.Increment
			}
			if p, ok := f.(*h2.PingFrame); ok && p.IsAck() {
				updates <- 0
			}
		}
	}()
	expect := func(what string, want func(n uint32) bool) {
		t.Helper()
		r.must(r.WritePing(false, [8]byte{}))
		var sum uint32
		for n := range updates {
			if n == 0 {
				break
			}
			sum += n
		}
		if !want(sum) {
			t.Errorf("%s, the window reopened by %d", what, sum)
		}
	}
	expect("no bytes were read", func(n uint32) bool { return n == 0 })
	read <- 20_000
	read <- 10_000 // the data of the last read is consumed by now
	expect("a few bytes were read", func(n uint32) bool { return n == 0 })
	read <- firstWindow - 30_000
	if n := <-updates; n < firstWindow/2 || n > firstWindow {
		t.Errorf("half of the window was read, and it reopened by %d", n)
	}
}

// Streams with much to send take turns, and a small response does not have to
// wait for all of them.
func TestStreamsTakeTurns(t *testing.T) {
	nc, _ := serve(t, Options{}, func(s *ServerStream) {
		if s.Request().Target == "/small" {
			_ = s.Respond(&message.Response{Status: 200, Length: 2}, false)
			_ = s.Write([]byte("ok"))
			_ = s.End(nil)
			return
		}
		_ = s.Respond(ok(), false)
		for p := make([]byte, 64<<10); s.Write(p) == nil; {
		}
	})
	r := newRaw(t, nc)
	r.preface()
	r.must(r.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: maxWindow}))
	r.must(r.WriteWindowUpdate(0, maxWindow-firstWindow))
	const bulk = 4
	for i := range uint32(bulk) {
		r.headers(2*i+1, true, simple...)
	}
	got := make(map[uint32]int)
	frames, begun := 0, false
	for asked := false; ; frames++ {
		f, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		d, ok := f.(*h2.DataFrame)
		if !ok {
			continue
		}
		if d.StreamID == 2*bulk+1 {
			break
		}
		if got[d.StreamID] += len(d.Data()); !begun && len(got) == bulk {
			begun, frames = true, 0 // before this, fewer streams took turns
			clear(got)
		}
		if begun && !asked && frames > 1000 {
			asked = true
			r.headers(2*bulk+1, true, ":method: GET", ":scheme: https", ":path: /small", ":authority: a.test")
		}
		if frames > 100_000 {
			t.Fatal("the small response waits for the large ones")
		}
	}
	least, most := 1<<62, 0
	for _, n := range got {
		least, most = min(least, n), max(most, n)
	}
	if len(got) != bulk || most > 2*least {
		t.Errorf("bulk streams got %v", got)
	}
}

// A small response is one write.
func TestASmallResponseIsOneWrite(t *testing.T) {
	mine, theirs := pair(t)
	counted := &countingConn{Conn: theirs}
	c := NewServerConn(counted, nil, Options{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Serve(func(s *ServerStream) {
			if s.Request().Target == "/grpc" {
				_ = s.Respond(ok(), false)
				_ = s.Write([]byte("message"))
				_ = s.End(message.Fields{{Name: "grpc-status", Value: "0"}})
				return
			}
			_ = s.Respond(&message.Response{Status: 200, Length: 5}, false)
			_ = s.Write([]byte("hello"))
			_ = s.End(nil)
		})
	}()
	defer func() {
		c.Close()
		await(t, ended, "Serve to return")
	}()
	r := rawClient(t, mine)
	for { // its SETTINGS and its acknowledgment of the client's
		f, err := r.ReadFrame()
		r.must(err)
		if s, ok := f.(*h2.SettingsFrame); ok && s.IsAck() {
			break
		}
	}
	for i, c := range []struct {
		path string
		want []h2.FrameType
	}{{"/grpc", []h2.FrameType{h2.FrameHeaders, h2.FrameData, h2.FrameHeaders}}, {"/", []h2.FrameType{h2.FrameHeaders, h2.FrameData}}} {
		before := counted.writes.Load()
		r.headers(uint32(2*i+1), true, ":method: GET", ":scheme: https", ":path: "+c.path, ":authority: a.test")
		var got []h2.FrameType
		for ended := false; !ended; {
			f, err := r.ReadFrame()
			r.must(err)
			got = append(got, f.Header().Type)
			ended = f.Header().Flags.Has(h2.FlagDataEndStream)
		}
		if n := counted.writes.Load() - before; n != 1 || !bytes.Equal(types(got), types(c.want)) {
			t.Errorf("%s: %d writes of %v", c.path, n, got)
		}
	}
}

func types(ts []h2.FrameType) (b []byte) {
	for _, t := range ts {
		b = append(b, byte(t))
	}
	return b
}

type countingConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// A window that stays shut holds a stream no longer than Options.StallTimeout.
// That holds for the stream's window and for the connection's.
func TestAPeerThatKeepsItsWindowShutIsReset(t *testing.T) {
	for _, which := range []string{"stream", "connection"} {
		t.Run(which, func(t *testing.T) {
			wrote := make(chan error, 1)
			nc, _ := serve(t, Options{StallTimeout: 100e6}, func(s *ServerStream) {
				_ = s.Respond(ok(), false)
				wrote <- s.Write(make([]byte, 10<<20))
			})
			r := newRaw(t, nc)
			r.preface()
			if which == "stream" {
				r.must(r.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 1}))
			} else {
				r.must(r.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 1 << 20}))
			}
			r.headers(1, true, simple...)
			for {
				f, err := r.next()
				r.must(err)
				if rst, ok := f.(*h2.RSTStreamFrame); ok {
					if rst.ErrCode != h2.ErrCodeCancel {
						t.Errorf("%v", rst)
					}
					break
				}
			}
			var e *Error
			if err := <-wrote; !errors.As(err, &e) || e.Connection {
				t.Errorf("%v", err)
			}
		})
	}
}
