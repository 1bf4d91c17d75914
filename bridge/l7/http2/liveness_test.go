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

// A meteredPipe is the near end of a net.Pipe whose far end is read at a
// limited rate. It counts the bytes read.
type meteredPipe struct {
	net.Conn
	taken   *atomic.Uint64
	writing atomic.Int64
}

func (m *meteredPipe) Write(p []byte) (int, error) {
	m.writing.Store(int64(len(p)))
	defer m.writing.Store(0)
	return m.Conn.Write(p)
}

func (m *meteredPipe) Delivered() (uint64, int) { return m.taken.Load(), int(m.writing.Load()) }

// A slowReader reads some bytes and then waits.
type slowReader struct {
	net.Conn
	taken *atomic.Uint64
	size  int
	every time.Duration
}

func (s *slowReader) Read(p []byte) (int, error) {
	time.Sleep(s.every)
	n, err := s.Conn.Read(p[:min(len(p), s.size)])
	s.taken.Add(uint64(n))
	return n, err
}

// A client that reads slowly but steadily gets everything, no matter how long
// that takes or what else the connection carries.
func TestASlowButSteadyReaderGetsEverything(t *testing.T) {
	for _, streams := range []int{1, 40} {
		synctest.Test(t, func(t *testing.T) {
			const size = 60_000
			near, far := net.Pipe()
			var taken atomic.Uint64
			server := NewServerConn(&meteredPipe{Conn: near, taken: &taken}, nil, Options{StallTimeout: time.Minute})
			served := make(chan error, 1)
			go func() {
				served <- server.Serve(func(s *ServerStream) {
					_ = s.Respond(&message.Response{Status: 200, Length: size}, false)
					_ = s.Write(make([]byte, size))
					_ = s.End(nil)
				})
			}()
			r := newRaw(t, far)
			_ = far.SetDeadline(time.Time{})
			go func() {
				r.preface()
				_ = r.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: size})
				_ = r.WriteWindowUpdate(0, 1<<30)
				for i := range streams {
					r.headersQuietly(uint32(2*i+1), true, simple...)
				}
			}()
			start := time.Now()
			reader := h2.NewFramer(nil, &slowReader{Conn: far, taken: &taken, size: 1000, every: 10 * time.Second})
			for got, ended := 0, 0; ended < streams; {
				f, err := reader.ReadFrame()
				if err != nil {
					t.Fatalf("%d bytes after %v: %v, %v", got, time.Since(start), err, <-served)
				}
				if d, ok := f.(*h2.DataFrame); ok {
					got += len(d.Data())
					if d.StreamEnded() {
						ended++
					}
				} else if f.Header().Type == h2.FrameRSTStream {
					t.Fatalf("%v after %v", f, time.Since(start))
				}
			}
			if d := time.Since(start); d < 9*time.Minute {
				t.Errorf("it took only %v", d)
			}
			far.Close()
			<-served
		})
	}
}

// A client that opens its window slowly but steadily gets everything too.
func TestAWindowThatOpensSlowlyButSteadilyIsEnough(t *testing.T) {
	inBubble(t, Options{StallTimeout: time.Minute}, func(s *ServerStream) {
		_ = s.Respond(&message.Response{Status: 200, Length: 2000}, false)
		_ = s.Write(make([]byte, 2000))
		_ = s.End(nil)
	}, func(t *testing.T, r *raw, served <-chan error) {
		received := make(chan bool, 100) // one value per frame
		defer close(received)
		go func() {
			r.preface()
			_ = r.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 100})
			r.headersQuietly(1, true, simple...)
			for range received {
				time.Sleep(40 * time.Second)
				_ = r.WriteWindowUpdate(1, 100)
			}
		}()
		for got := 0; ; {
			f, err := r.ReadFrame()
			r.must(err)
			d, ok := f.(*h2.DataFrame)
			if !ok {
				if f.Header().Type == h2.FrameRSTStream {
					t.Fatalf("%v after %d bytes", f, got)
				}
				continue
			}
			if got += len(d.Data()); d.StreamEnded() {
				return
			}
			received <- true
		}
	})
}

// blackHole runs a client whose server sends its settings and then nothing,
// except answers to PING while answers is set.
func blackHole(t *testing.T, answers *atomic.Bool, script func(t *testing.T, c *ClientConn, ran <-chan error)) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := NewClientConn(near, Options{Changed: func() {}})
		ran := make(chan error, 1)
		go func() { ran <- c.Run() }()
		go func() {
			r := newRaw(t, far)
			_ = far.SetDeadline(time.Time{})
			_, _ = io.ReadFull(far, make([]byte, len(h2.ClientPreface)))
			_ = r.WriteSettings()
			for {
				f, err := r.ReadFrame()
				if err != nil {
					return
				}
				if p, ok := f.(*h2.PingFrame); ok && answers.Load() {
					_ = r.WritePing(true, p.Data)
				}
			}
		}()
		synctest.Wait()
		script(t, c, ran)
		c.Close()
		far.Close()
		synctest.Wait()
	})
}

// A vanished server is detected even while requests are still sent to it.
func TestADeadServerIsDetectedDespiteTraffic(t *testing.T) {
	var answers atomic.Bool
	blackHole(t, &answers, func(t *testing.T, c *ClientConn, ran <-chan error) {
		start := time.Now()
		s := c.Open()
		defer s.Done()
		if err := s.Send(post("/"), false); err != nil {
			t.Fatal(err)
		}
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for s.Write([]byte("x")) == nil && s.Flush() == nil {
				time.Sleep(time.Second)
			}
		}()
		defer func() { <-stopped }()
		if err := <-ran; !errors.Is(err, errDead) || !between(time.Since(start), 45*time.Second, 55*time.Second) {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// A request that was given up without an answer makes its connection suspect:
// it gets a PING at once, and opens no stream until the server answers.
func TestAnUnansweredRequestMakesItsConnectionSuspect(t *testing.T) {
	for _, alive := range []bool{true, false} {
		var answers atomic.Bool
		blackHole(t, &answers, func(t *testing.T, c *ClientConn, ran <-chan error) {
			giveUp := func(after time.Duration) {
				s := c.Open()
				if s == nil {
					t.Fatal("no room")
				}
				if err := s.Send(get("/"), true); err != nil {
					t.Fatal(err)
				}
				time.Sleep(after)
				s.Abort(errTest)
				s.Done()
				synctest.Wait()
			}
			giveUp(10 * time.Millisecond)
			if c.Room() == 0 {
				t.Error("suspect after a request that did not wait")
			}
			answers.Store(alive)
			start := time.Now()
			giveUp(5 * time.Second)
			if alive {
				if c.Room() == 0 || c.Err() != nil {
					t.Errorf("suspect although the server has answered: %v", c.Err())
				}
				return
			}
			if c.Room() != 0 || c.Open() != nil || !c.CanOpen() {
				t.Error("not suspect")
			}
			if err := <-ran; !errors.Is(err, errDead) || !between(time.Since(start), 20*time.Second, 25*time.Second) {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	}
}

// A large body frame that arrives a byte at a time is read to its end as long
// as bytes keep arriving.
func TestASlowBodyFrameIsReadToItsEnd(t *testing.T) {
	const size = 500
	read := make(chan string, 1)
	inBubble(t, Options{StallTimeout: time.Minute, HeaderTimeout: 10 * time.Second}, func(s *ServerStream) {
		all, _ := readAll(s)
		read <- string(all)
	}, func(t *testing.T, r *raw, served <-chan error) {
		go func() { _, _ = io.Copy(io.Discard, r.Conn) }()
		r.hello()
		r.headers(1, false, simplePost...)
		_, err := r.Conn.Write([]byte{0, size >> 8, size & 0xff, 0, 1, 0, 0, 0, 1})
		r.must(err)
		for range size {
			time.Sleep(20 * time.Second)
			if _, err := r.Conn.Write([]byte("x")); err != nil {
				break
			}
		}
		if got := <-read; got != strings.Repeat("x", size) {
			t.Errorf("%d bytes arrived", len(got))
		}
	})
}
