package l7

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
)

// A body within the bound is resent byte for byte; a longer one is not resent.
func TestBodiesAreResentWithinTheLimit(t *testing.T) {
	random := make([]byte, 300_000)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			for _, bound := range []int{1, 1000, 8 << 10, 32 << 10, 64 << 10, 200_000} {
				for _, n := range []int{1, bound - 1, bound, bound + 1} {
					for _, sized := range []bool{true, false} {
						f := &failingFirst{fails: 2}
						r := everything
						r.MaxBody, r.Attempts = bound, 3
						table := *table
						table.Default = retried(w.back(p, w.server(f.handler(func(rw http.ResponseWriter, _ *http.Request) {
							if len(f.requests()) == 1 {
								panic(http.ErrAbortHandler)
							}
							http.Error(rw, "", http.StatusServiceUnavailable)
						}), "h2", "http/1.1")), r)
						s, address := w.gateway(fixed(&table))
						body := random[:n]
						var from io.Reader = bytes.NewReader(body)
						if !sized {
							from = struct{ io.Reader }{from}
						}
						req, _ := http.NewRequest("PUT", scheme+"://"+address+"/x", from)
						if !sized {
							req.Trailer = http.Header{"X-Sum": {fmt.Sprintf("%x", sha256.Sum256(body))}}
						}
						res, err := w.browser().Do(req)
						if err != nil {
							t.Fatal(err)
						}
						_, _ = io.Copy(io.Discard, res.Body)
						res.Body.Close()
						name := fmt.Sprintf("%v: %d bytes of %d, sized %v", p, n, bound, sized)
						want, tries := 200, 3
						if n > bound {
							want, tries = 502, 1
						}
						got := f.requests()
						if res.StatusCode != want || len(got) != tries {
							t.Errorf("%s: %d after %d tries", name, res.StatusCode, len(got))
						}
						for i, r := range got {
							shown := "PUT /x " + string(body)
							if !sized {
								shown += fmt.Sprintf("X-Sum[%x]", sha256.Sum256(body))
							}
							if r != shown {
								t.Errorf("%s: try %d had %d bytes, want %d", name, i, len(r), len(shown))
							}
						}
						eventually(t, "the request has ended", func() bool { return s.Stats().InFlight == 0 })
					}
				}
			}
		})
	}
}

// While a client sends its body slowly, several tries fail. Each try receives the part
// that has arrived at once, and the last try receives the whole body.
func TestTriesThatEndDuringTheUpload(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			const parts = 5
			arrived := make(chan string, 10)
			var tries atomic.Int32
			r := everything
			r.Attempts = parts
			table.Default = retried(w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				try := int(tries.Add(1))
				all := make([]byte, 0, 100)
				for len(all) < 5*try { // all bytes that the client has sent so far
					n, err := r.Body.Read(all[len(all):cap(all)])
					if all = all[:len(all)+n]; err != nil {
						t.Errorf("try %d ends after %q: %v", try, all, err)
						break
					}
				}
				arrived <- string(all)
				if try < parts {
					breakOff(rw)
				}
				rest, err := io.ReadAll(r.Body)
				fmt.Fprint(rw, string(all), string(rest), r.Trailer.Get("X-Last"), err)
			}), "h2", "http/1.1")), r)
			s, address := w.gateway(fixed(table))
			var to io.Writer
			var end func()
			answered := make(chan string, 1)
			answer := func(res *http.Response, err error) {
				if err != nil {
					answered <- err.Error()
					return
				}
				defer res.Body.Close()
				b, _ := io.ReadAll(res.Body)
				answered <- fmt.Sprint(res.StatusCode, " ", string(b))
			}
			if scheme == "http" { // Go's client would hold back the first part
				c := w.dial(address)
				c.send("POST / HTTP/1.1", "Host: a", "Trailer: X-Last", "Transfer-Encoding: chunked")
				to = chunks{c}
				end = func() {
					fmt.Fprint(c, "0\r\nX-Last: !\r\n\r\n")
					answer(http.ReadResponse(c.r, nil))
				}
			} else {
				body, pipe := io.Pipe()
				req, _ := http.NewRequest("POST", scheme+"://"+address, body)
				req.Trailer = http.Header{"X-Last": {"!"}}
				to, end = pipe, func() { pipe.Close() }
				go func() { answer(w.browser().Do(req)) }()
			}
			sent := ""
			for i := range parts {
				part := fmt.Sprintf("part%d", i)
				sent += part
				if _, err := io.WriteString(to, part); err != nil {
					t.Fatal(err)
				}
				if got := <-arrived; got != sent {
					t.Errorf("%v: try %d had %q, want %q", p, i+1, got, sent)
				}
			}
			end()
			if got := <-answered; got != "200 "+sent+"!<nil>" {
				t.Errorf("%v: answered %q", p, got)
			}
			eventually(t, "the request has ended", func() bool { return s.Stats().InFlight == 0 })
		})
	}
}

// breakOff ends an exchange without a response and without waiting for the rest
// of the request.
func breakOff(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) // fails with HTTP/2, which needs no deadline
	panic(http.ErrAbortHandler)
}

// chunks flushes each write.
type chunks struct{ to io.Writer }

func (c chunks) Write(p []byte) (int, error) {
	fmt.Fprintf(c.to, "%x\r\n%s\r\n", len(p), p)
	return len(p), nil
}

// Keeping a body does not delay it, and the kept bytes are dropped when the response
// begins.
func TestStreamsThatMayBeRetried(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			r := everything
			r.MaxBody = 1000
			table.Default = retried(w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				control := http.NewResponseController(rw)
				_ = control.EnableFullDuplex()
				_ = control.Flush()
				buf := make([]byte, 100)
				for {
					n, err := r.Body.Read(buf)
					_, _ = rw.Write(buf[:n])
					if _ = control.Flush(); err != nil {
						return
					}
				}
			}), "h2", "http/1.1")), r)
			_, address := w.gateway(fixed(table))
			body, to := io.Pipe()
			res, err := w.browser().Post(scheme+"://"+address, "text/plain", body)
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			for i := range 50 { // five times the bound
				part := fmt.Sprintf("%0100d", i)
				if _, err := io.WriteString(to, part); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != part {
					t.Fatalf("%v: part %d came back as %q, %v", p, i, buf, err)
				}
			}
			to.Close()
			if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
				t.Errorf("%v: %q, %v", p, rest, err)
			}
			res.Body.Close()
		})
	}
}

// A client that waits for 100 (Continue) gets one, from the first upstream that
// wants the body.
func TestExpectContinueWithRetries(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		w := newTestbed(t)
		var tries atomic.Int32
		r := everything
		r.Attempts = 4
		_, address := w.gateway(fixed(&Table{Default: retried(w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			switch tries.Add(1) {
			case 1: // before reading the body
				http.Error(rw, "", http.StatusServiceUnavailable)
			case 2: // after the body
				_, _ = io.Copy(io.Discard, r.Body)
				http.Error(rw, "", http.StatusServiceUnavailable)
			case 3: // in the middle of the body
				_, _ = r.Body.Read(make([]byte, 2))
				breakOff(rw)
			default:
				b, _ := io.ReadAll(r.Body)
				fmt.Fprint(rw, r.Header["Expect"], string(b))
			}
		}), "h2", "http/1.1")), r)}))
		begun, c := time.Now(), w.dial(address)
		c.send("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Expect: 100-continue")
		line, _ := c.r.ReadString('\n')
		late := time.Since(begun) >= time.Second // the gateway waits no longer for the first upstream
		if line != "HTTP/1.1 100 Continue\r\n" || p == backs.HTTP1 && tries.Load() != 2 && !late {
			t.Errorf("%v: %q in try %d", p, line, tries.Load())
		}
		_, _ = c.r.ReadString('\n')
		fmt.Fprint(c, "hello")
		if res, body := c.answer(t, "POST"); res.StatusCode != 200 || body != "[]hello" || tries.Load() != 4 {
			t.Errorf("%v: %d %q after %d tries", p, res.StatusCode, body, tries.Load())
		}
		c.Close()
	}
}

// If the client aborts its body, the request is not sent again.
func TestBrokenBodiesAreNotResent(t *testing.T) {
	w := newTestbed(t)
	tries := make(chan bool, 10)
	_, address := w.gateway(fixed(&Table{Default: retried(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		tries <- true
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	}))), everything)}))
	c := w.dial(address)
	fmt.Fprint(c, "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	<-tries
	fmt.Fprint(c, "zz\r\n")
	if res, _ := c.answer(t, "PUT"); res.StatusCode != 400 || !res.Close || len(tries) > 0 {
		t.Errorf("%d, and %d more tries", res.StatusCode, len(tries))
	}
}

// Clients that leave at any time during the tries leave nothing behind.
func TestClientsThatLeaveDuringARetry(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			f := &failingFirst{fails: 1000}
			failed := make(chan bool, 1000)
			r := everything
			r.Backoff = 10 * time.Second
			back := w.back(p, w.server(f.handler(func(rw http.ResponseWriter, _ *http.Request) {
				http.Error(rw, "", http.StatusServiceUnavailable)
				failed <- true
			}), "h2", "http/1.1"))
			table.Default = retried(back, r)
			s, address := w.gateway(fixed(table))
			const pause = 5 * time.Second // the least
			slow := 0
			for i := range 4 {
				begun := time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				var body io.Reader
				if i%2 == 1 {
					body = strings.NewReader("hello")
				}
				req, _ := http.NewRequestWithContext(ctx, "PUT", scheme+"://"+address, body)
				left := make(chan error)
				go func() {
					_, err := w.browser().Do(req)
					left <- err
				}()
				<-failed
				eventually(t, "the pause", func() bool {
					_, retrying := back.Upstream().Retries().InProgress()
					return retrying == 1
				})
				cancel()
				if time.Since(begun) > pause {
					slow++ // the client may have left after the pause
				}
				if err := <-left; err == nil {
					t.Error("the request got a response")
				}
				eventually(t, "no request or connection is left", func() bool {
					requests, retrying := back.Upstream().Retries().InProgress()
					return s.Stats().InFlight == 0 && requests == 0 && retrying == 0
				})
			}
			if n := len(f.requests()); n < 4 || n > 4+slow {
				t.Errorf("%v: %d tries", p, n)
			}
			if got := s.Stats().Requests; got[499] != 4 {
				t.Errorf("%v: answered %v", p, got)
			}
		})
	}
}
