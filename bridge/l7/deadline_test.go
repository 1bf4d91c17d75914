package l7

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
)

// silentUpstream is an upstream whose first requests are never answered.
type silentUpstream struct {
	left    atomic.Int32
	arrived chan string
	aborted chan bool
}

func newSilentUpstream(n int) *silentUpstream {
	s := &silentUpstream{arrived: make(chan string, 100), aborted: make(chan bool, 100)}
	s.left.Store(int32(n))
	return s
}

func (s *silentUpstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	s.arrived <- string(b)
	if err == nil && s.left.Add(-1) < 0 {
		fmt.Fprintf(w, "served %s", b)
		return
	}
	<-r.Context().Done()
	s.aborted <- true
}

// A try that takes too long is aborted and retried; if the last try takes too long,
// the client gets 504.
func TestTriesHaveADeadline(t *testing.T) {
	t.Parallel()
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
			for _, c := range []struct {
				method  string
				stuck   int
				methods []string
				code    int
				tries   int
			}{
				{"PUT", 1, nil, 200, 2},
				{"GET", 2, nil, 504, 2},
				{"POST", 1, nil, 504, 1}, // the upstream may have processed the request
				{"POST", 1, []string{"POST"}, 200, 2},
			} {
				// On a slow machine a try may time out before its request or its response
				// arrives.
				for perTry := 300 * time.Millisecond; ; perTry *= 2 {
					up := newSilentUpstream(c.stuck)
					table := *table
					table.Default = retried(w.back(p, w.server(up, "h2", "http/1.1")), exchange.Retry{PerTry: perTry, Methods: c.methods, Backoff: 1})
					s, address := w.gateway(fixed(&table))
					var body io.Reader
					if c.method != "GET" {
						body = strings.NewReader("hello")
					}
					req, _ := http.NewRequest(c.method, scheme+"://"+address, body)
					res, err := w.browser().Do(req)
					if err != nil {
						t.Fatal(err)
					}
					b, _ := io.ReadAll(res.Body)
					res.Body.Close()
					eventually(t, "the upstream learns of each aborted request", func() bool { return len(up.aborted) >= min(c.stuck, len(up.arrived)) })
					eventually(t, "the request has ended", func() bool { return s.Stats().InFlight == 0 })
					want := "served hello"
					if c.code == 504 {
						want = "gateway timeout\n"
					}
					if res.StatusCode != c.code || string(b) != want || len(up.arrived) != c.tries {
						if perTry < testTimeout/4 {
							continue
						}
						t.Errorf("%v: %s, %d stuck: %d %q after %d tries", p, c.method, c.stuck, res.StatusCode, b, len(up.arrived))
					}
					break
				}
			}
		})
	}
}

// The time limit of the exchange bounds all tries together.
func TestTriesEndAtTheTotalDeadline(t *testing.T) {
	w := newTestbed(t)
	up := newSilentUpstream(1000)
	action := retried(w.back(backs.HTTP1, w.server(up)), exchange.Retry{Attempts: 10, PerTry: 200 * time.Millisecond, Backoff: 1})
	action.Forward.Timeout = 300 * time.Millisecond
	_, address := w.gateway(fixed(&Table{Default: action}))
	if code, body := w.get(w.browser(), "http://"+address); code != 504 || body != "gateway timeout\n" {
		t.Errorf("%d %q", code, body)
	}
	if n := len(up.arrived); n > 2 {
		t.Errorf("%d tries", n)
	}
	// The time left is shorter than the pause before the next try, which is 5 s or more.
	action = retried(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "busy", http.StatusServiceUnavailable) }))),
		exchange.Retry{Codes: []int{503}, Backoff: 10 * time.Second})
	action.Forward.Timeout = 4 * time.Second
	_, address = w.gateway(fixed(&Table{Default: action}))
	for tries := 0; ; tries++ {
		code, body := w.get(w.browser(), "http://"+address)
		if code == 504 && tries < 5 {
			continue // the machine stalled for as long as the deadline
		}
		if code != 503 || body != "busy\n" {
			t.Errorf("%d %q", code, body)
		}
		break
	}
}

// The time limit of a try ends with the head of the response. It bounds neither
// the response's body nor the client.
func TestTheTimeoutOfATryDoesNotBoundBodies(t *testing.T) {
	t.Parallel()
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		withGrowingLimit(t, 600*time.Millisecond, func(perTry time.Duration) bool { return slowBodiesAreTriedOnce(t, p, perTry) })
	}
}

func slowBodiesAreTriedOnce(t *testing.T, p backs.Protocol, perTry time.Duration) (inTime bool) {
	w := newTestbed(t)
	tries := make(chan bool, 10)
	action := retried(w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		tries <- true
		b, _ := io.ReadAll(r.Body)
		_ = http.NewResponseController(rw).Flush()
		time.Sleep(2 * perTry)
		fmt.Fprint(rw, string(b))
	}), "h2", "http/1.1")), exchange.Retry{PerTry: perTry, Backoff: 1})
	_, address := w.gateway(fixed(&Table{Default: action}))
	c := w.dial(address)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(testTimeout + 4*perTry))
	c.send("PUT / HTTP/1.1", "Host: a", "Content-Length: 10")
	fmt.Fprint(c, "hello")
	time.Sleep(2 * perTry)
	fmt.Fprint(c, "world")
	res, body := c.answer(t, "PUT")
	if len(tries) != 1 || res.StatusCode == 504 {
		return false // the response's head came too late
	}
	if res.StatusCode != 200 || body != "helloworld" {
		t.Errorf("%v: %d %q", p, res.StatusCode, body)
	}
	return true
}

// An endpoint that does not complete the handshake has not seen the request.
func TestADialIsPartOfATry(t *testing.T) {
	w := newTestbed(t)
	silent := w.raw(nil, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	withGrowingLimit(t, 300*time.Millisecond, func(perTry time.Duration) bool {
		_, address := w.gateway(fixed(&Table{Default: retried(w.back(backs.HTTP1, silent, w.server(echo)), exchange.Retry{PerTry: perTry, Backoff: 1})}))
		for range 2 { // round robin may begin with either endpoint
			res, err := w.browser().Post("http://"+address, "text/plain", strings.NewReader("hello"))
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode == 504 {
				return false
			}
			if res.StatusCode != 200 || !strings.HasSuffix(string(b), "hello") {
				t.Errorf("%d %q", res.StatusCode, b)
			}
		}
		return true
	})
}
