package http2

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"
)

// A Read of a body that arrives too slowly, or not at all, times out, and the
// client still gets a response.
func TestASlowBodyTimesOut(t *testing.T) {
	o := Options{BodyTimeout: time.Minute, MinRate: 500, StallTimeout: time.Hour, PingInterval: time.Hour, IdleTimeout: time.Hour}
	const forEver = time.Hour // longer than any of these bodies takes
	for _, c := range []struct {
		name        string
		size        int // the size of each piece of the body
		every       time.Duration
		pieces      int
		before      func(s *ServerStream) // what the handler does first
		pause       time.Duration         // time that the handler waits after each Read
		least, most time.Duration         // until Read fails; forEver if it does not
	}{
		{name: "nothing", least: time.Minute, most: 66 * time.Second},
		{name: "a byte at long intervals", size: 1, every: 10 * time.Second, pieces: 100, least: time.Minute, most: 66 * time.Second},
		{name: "a little slower than allowed", size: 400, every: time.Second, pieces: 3600, least: 4 * time.Minute, most: 6 * time.Minute},
		{name: "many bytes, and then none", size: 16_000, every: time.Second, pieces: 1, least: time.Minute, most: 67 * time.Second},
		{name: "just fast enough", size: 600, every: time.Second, pieces: 900, least: forEver},
		{name: "with pauses", size: 5000, every: 10 * time.Second, pieces: 30, least: forEver},
		{name: "to a slow reader", size: 1, every: 50 * time.Second, pieces: 8, pause: 49 * time.Second, least: forEver},
		{name: "after the response has begun", size: 1, every: 2 * time.Minute, pieces: 10, least: forEver,
			before: func(s *ServerStream) { _ = s.Respond(ok(), false); _ = s.Flush() }},
		{name: "without a limit for bodies", size: 1, every: 2 * time.Minute, pieces: 10, least: forEver, before: (*ServerStream).NoBodyTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			type end struct {
				err   error
				after time.Duration
			}
			var ended chan end // created inside the bubble
			inBubble(t, o, func(s *ServerStream) {
				start := time.Now()
				if c.before != nil {
					c.before(s)
				}
				_, err := s.Read()
				for ; err == nil; _, err = s.Read() {
					time.Sleep(c.pause)
				}
				ended <- end{err, time.Since(start)}
				r := ok()
				if r.Length = 0; err != io.EOF {
					r.Status = 408
				}
				if s.Respond(r, true) != nil {
					_ = s.End(nil) // after Respond in before
				}
			}, func(t *testing.T, r *raw, served <-chan error) {
				ended = make(chan end, 1)
				got := make(chan string, 1)
				go func() {
					r.untilClosed(func(f h2.Frame) {
						if m, ok := f.(*h2.MetaHeadersFrame); ok {
							got <- m.PseudoValue("status")
						}
					})
				}()
				r.hello()
				r.headers(1, false, simplePost...)
				piece := []byte(strings.Repeat("x", c.size))
				for range c.pieces {
					time.Sleep(c.every)
					r.must(r.WriteData(1, false, piece))
				}
				if c.least == forEver {
					r.must(r.WriteData(1, true, nil))
				}
				e, outcome := <-ended, <-got
				switch {
				case c.least == forEver && (e.err != io.EOF || outcome != "200"):
					t.Errorf("cut off after %v: %v, %s", e.after, e.err, outcome)
				case c.least != forEver && (!errors.Is(e.err, os.ErrDeadlineExceeded) || !between(e.after, c.least, c.most) || outcome != "408"):
					t.Errorf("after %v: %v, %s", e.after, e.err, outcome)
				}
				synctest.Wait()
			})
		})
	}
}
