package l7

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// endlessUpstream1 is an HTTP/1.1 upstream that sends the head and n bytes of the body of a
// long response; plaintext if config is nil. Like those of silentUpstream1, its connections
// use no memory of this process.
func (w *testbed) endlessUpstream1(config *tls.Config, n int) (address string) {
	ln := listen(w)
	response := append([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"), make([]byte, n)...)
	head := make([]byte, 200)
	w.serveBare(ln, config, func(c *net.TCPConn, peer net.Conn) func() {
		_ = c.SetWriteBuffer(2 * n)
		if _, err := peer.Read(head); err == nil {
			_, _ = peer.Write(response) // the client sees the end of the connection
		}
		return func() {}
	})
	return ln.Addr().String()
}

// Requests whose client does not read the responses hold no more than 1 MiB and their
// windows, with TLS too: crypto/tls holds a record of each response, because it can decrypt
// a record only as a whole. Further requests are refused.
func TestUnreadResponsesHoldLittle(t *testing.T) {
	if alloctest.Race {
		t.Skip("the race detector's memory is in the sum")
	}
	for _, secure := range []bool{false, true} {
		for _, window := range []uint32{0, 1, 1000} {
			for _, n := range []int{100, 100 << 10} {
				t.Run(fmt.Sprintf("tls=%v,window=%d,bytes=%d", secure, window, n), func(t *testing.T) {
					w := newTestbed(t)
					var config *tls.Config
					if secure {
						config = w.serverTLS("http/1.1")
						config.DynamicRecordSizingDisabled = true // the first record is as large as others
					}
					requests, held := w.heldUnread(w.patientBack1(w.endlessUpstream1(config, n), secure), window)
					// The count is a little inexact.
					if most := maxStreamMemory + requests*(int(window)+2<<10); held > most || requests < 20 {
						t.Errorf("%d KiB are held for %d requests, want at most %d KiB for at least 20", held>>10, requests, most>>10)
					}
				})
			}
		}
	}
}

var get = []string{":method: GET", ":scheme: http", ":authority: a", ":path: /"}

// A client that opens its windows wide, and then reads nothing from its socket, makes the
// gateway hold no more than the connection's window and what other requests hold.
func TestAClientThatStopsReadingHoldsLittle(t *testing.T) {
	if alloctest.Race {
		t.Skip("the race detector's memory is in the sum")
	}
	const window = 2 << 20 // the size of every window
	w := newTestbed(t)
	_, address := w.plain(w.patientBack1(w.endlessUpstream1(nil, 1<<20), false))
	keepStackSize(w)
	c := w.framed(t, address, false)
	defer c.Close()
	_ = c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	_ = c.framer.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: unreadMemory}) // fewer streams are allowed below
	next := uint32(1)
	c.requestAll(w, &next, 1, get...)
	inUse() // settles the size of stacks
	before := inUse()
	const requests = maxStreams - 1
	c.requestAll(w, &next, requests, get...)
	_ = c.framer.WriteWindowUpdate(0, window)
	_ = c.framer.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: window})
	held := 0
	for steady := 0; steady < 5; steady++ { // until no more responses arrive
		if now := inUse() - before; now > held+(32<<10) || now < held-(32<<10) {
			steady, held = 0, now
		}
	}
	w.Logf("%d KiB are held", held>>10)
	if held > 1<<20+window {
		t.Errorf("%d KiB are held, want at most 1 MiB and the window", held>>10)
	}
}

// requestAll makes n requests, one after the other, and reads the head of each response.
func (c *framed) requestAll(w *testbed, next *uint32, n int, fields ...string) {
	for range n {
		if !c.requested(w, *next, fields...) {
			w.Fatalf("stream %d was reset", *next)
		}
		*next += 2
	}
}

// requested makes a request, and reads the head of the response. It reports whether the
// request was accepted.
func (c *framed) requested(w *testbed, id uint32, fields ...string) bool {
	c.headers(id, fields, fields[0] == ":method: GET")
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			w.Fatal(err)
		}
		if f.Header().StreamID != id {
			continue
		}
		switch f.Header().Type {
		case h2.FrameHeaders:
			return true
		case h2.FrameRSTStream:
			return false
		}
	}
}

// heldUnread makes requests, one after the other, until one is refused. Their responses do
// not fit into the windows of their streams. It returns how many were accepted after the
// first, and how many bytes these hold.
func (w *testbed) heldUnread(up *backs.Pools, window uint32) (requests, held int) {
	_, address := w.plain(up)
	keepStackSize(w)
	c := w.framed(w.TB.(*testing.T), address, false)
	defer c.Close()
	_ = c.framer.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: window})
	next := uint32(1)
	c.requestAll(w, &next, 1, get...)
	inUse() // settles the size of stacks
	before := inUse()
	for c.requested(w, next, get...) {
		next += 2
		requests++
	}
	for run := range 10 { // the minimum counts, because the last responses may still arrive
		if now := inUse() - before; run == 0 || now < held {
			held = now
		}
	}
	w.Logf("%d requests hold %d KiB, %d bytes each", requests, held>>10, held/requests)
	return requests, held
}

// Responses of which the gateway reads little at a time arrive whole.
func TestUnreadResponsesArriveWhole(t *testing.T) {
	const requests = 50 // enough for what they hold to reach the bound
	body := func(target string) string {
		n, _ := strconv.Atoi(target[1:])
		return string(randomBytes(100<<10 + n))
	}
	long := strings.Repeat("v", 3000) // longer than a small read
	u := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b := body(r.URL.Path)
		rw.Header().Set("X-Long", long)
		if len(b)%2 == 0 {
			rw.Header().Set("Content-Length", strconv.Itoa(len(b)))
		}
		for len(b) > 0 {
			n := min(5000, len(b))
			_, _ = rw.Write([]byte(b[:n])) // the client sees the end of the response
			b = b[n:]
		}
	})
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			w := newTestbed(t)
			var up string
			if secure {
				up = w.server(u, "http/1.1")
			} else {
				up = w.clearServer(u)
			}
			_, address := w.plain(w.patientBack1(up, secure))
			client := w.dial2(address)
			var began, ended sync.WaitGroup
			began.Add(requests)
			for n := range requests {
				ended.Go(func() {
					target, head := fmt.Sprintf("/%d", n), message.Response{}
					s := client.Open()
					defer s.Done()
					err := s.Send(&message.Request{Method: "GET", Scheme: "http", Authority: "a.test", Target: target}, true)
					if err == nil {
						err = s.Receive(&head)
					}
					began.Done()
					began.Wait() // until then the windows are shut
					if err != nil {
						t.Errorf("%s: %v", target, err)
						return
					}
					if got, _ := head.Fields.Get("X-Long"); got != long {
						t.Errorf("%s: the field has %d bytes", target, len(got))
					}
					if got := rest(s); got != body(target)+" end" {
						t.Errorf("%s: %d bytes of the body, which differ", target, len(got))
					}
				})
			}
			ended.Wait()
		})
	}
}
