package http2

import (
	"strings"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A client that is answered while it sends has time to read the response before
// its stream is reset. That holds for responses of a handler and for 431.
func TestAnEarlyResponseIsNotResetAtOnce(t *testing.T) {
	for name, fields := range map[string][]string{"an answer": simplePost, "a head too large": with(simplePost, "x: "+strings.Repeat("a", 5000))} {
		for _, ends := range []bool{false, true} {
			inBubble(t, Options{MaxHeaderBytes: 4 << 10}, func(s *ServerStream) {
				_ = s.Respond(&message.Response{Status: 413, Length: 4}, false)
				_ = s.Write([]byte("well"))
				_ = s.End(nil)
			}, func(t *testing.T, r *raw, served <-chan error) {
				end := make(chan bool)
				go func() {
					r.hello()
					r.headersQuietly(1, false, fields...)
					_ = r.WriteData(1, false, []byte("a part of the body"))
					<-end
					if ends {
						_ = r.WriteData(1, true, []byte("the rest"))
						time.Sleep(2 * dismissTime)
						r.Conn.Close()
					}
				}()
				reader := h2.NewFramer(nil, r.Conn)
				var answered time.Time
				for {
					f, err := reader.ReadFrame()
					if err != nil {
						if !ends || answered.IsZero() {
							t.Errorf("%s: %v", name, err)
						}
						return
					}
					if kind := f.Header().Type; (kind == h2.FrameHeaders || kind == h2.FrameData) && f.Header().Flags.Has(h2.FlagDataEndStream) {
						answered = time.Now()
						close(end)
					}
					rst, ok := f.(*h2.RSTStreamFrame)
					if !ok {
						continue
					}
					if d := time.Since(answered); ends || answered.IsZero() || d < dismissTime || rst.ErrCode != h2.ErrCodeNo {
						t.Errorf("%s: %v %v after the answer", name, rst, d)
					}
					return
				}
			})
		}
	}
}

// The number of streams that are being dismissed is bounded.
func TestDismissedStreamsAreBounded(t *testing.T) {
	nc, c := serve(t, Options{}, func(s *ServerStream) { _ = s.Respond(&message.Response{Status: 403, Length: 0}, true) })
	r := rawClient(t, nc)
	const streams = 2 * maxDismissed
	go func() {
		for i := range uint32(streams) {
			r.headersQuietly(2*i+1, false, simplePost...)
		}
	}()
	for answered := 0; answered < streams; {
		f, err := h2.NewFramer(nil, nc).ReadFrame()
		r.must(err)
		if f.Header().Type == h2.FrameHeaders {
			answered++
		}
		c.mu.Lock()
		if c.dismissed > maxDismissed {
			t.Errorf("%d streams are being dismissed", c.dismissed)
		}
		c.mu.Unlock()
	}
	eventually(t, "all streams to be reset", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.dismissed == 0 && len(c.streams) == 0
	})
}
