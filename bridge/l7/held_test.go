package l7

import (
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
)

// A silentUpstream is a plaintext HTTP/2 upstream that receives requests and never
// answers. It uses little memory itself. window is the initial window of a stream.
func (w *testbed) silentUpstream(arrived chan<- struct{}, window uint32) (address string) {
	return w.raw(nil, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		f := http2.NewFramer(c, c)
		f.SetReuseFrames()
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1000}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
		_ = f.WriteWindowUpdate(0, 1<<30) // a large window, so that no upload waits for the upstream
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if frame.Header().Type == http2.FrameHeaders {
				arrived <- struct{}{}
			}
		}
	})
}

// The streams of a connection together hold less than a MiB besides their windows,
// for every kind of wait.
func TestAnOpenRequestHoldsLittle(t *testing.T) {
	if alloctest.Race {
		t.Skip("the race detector's memory is in the sum")
	}
	for name, request := range map[string]heldRequest{
		"without a body":           {fields: []string{":method: GET", ":path: /"}, end: true},
		"whose body has not begun": {fields: []string{":method: POST", ":path: /"}},
		"with a part of its body":  {fields: []string{":method: POST", ":path: /"}, body: "x"},
		"a gRPC stream":            {fields: []string{":method: POST", ":path: /a.B/C", "content-type: application/grpc", "te: trailers"}, body: "\x00\x00\x00\x00\x01x"},
		"with a body of a few KiB": {fields: []string{":method: POST", ":path: /"}, body: strings.Repeat("x", 3<<10)},
		"with a part of a KiB":     {fields: []string{":method: POST", ":path: /", "content-length: 1024"}, body: strings.Repeat("x", 500)},
	} {
		t.Run(name, func(t *testing.T) {
			held := request.held(t)
			if most := streamMemory + 2<<10 + len(request.body); held > most {
				t.Errorf("%d bytes are held for each request, want at most %d", held, most)
			}
		})
	}
}

// Uploads hold as little if the upstream has no room for them, or does not request their
// bodies. Their bodies count as parts of their windows.
func TestABlockedUploadHoldsLittle(t *testing.T) {
	if alloctest.Race {
		t.Skip("the race detector's memory is in the sum")
	}
	post := []string{":method: POST", ":path: /"}
	for name, request := range map[string]struct {
		heldRequest
		buffers int // most that the body and its copy may take
	}{
		"with a body of one byte":                  {heldRequest{fields: post, body: "x", shut: true}, 512},
		"with a body of a few KiB":                 {heldRequest{fields: post, body: strings.Repeat("x", 3<<10), shut: true}, 4 << 10},
		"with a body that fills its window":        {heldRequest{fields: post, body: strings.Repeat("x", 60<<10), shut: true}, 65535},
		"whose body the upstream does not request": {heldRequest{fields: append(post, "expect: 100-continue")}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if held, most := request.held(t)-request.buffers, maxStreamMemory/maxStreams; held > most {
				t.Errorf("%d bytes are held for each upload besides its window, want at most %d", held, most)
			}
		})
	}
}

// A heldRequest is a request of HTTP/2 to an upstream that does not answer.
type heldRequest struct {
	fields   []string // :method, :path and others
	end      bool
	body     string
	shut     bool // the upstream's windows are shut
	upstream *backs.Pools
}

// held opens as many such requests as a connection may have, and returns how many bytes
// each of them holds.
func (request *heldRequest) held(t *testing.T) int {
	w, arrived := newTestbed(t), make(chan struct{}, maxStreams)
	window := uint32(1 << 20) // so that no upload waits for the upstream
	if request.shut {
		window = 0
	}
	request.upstream = w.newBack(backs.Options{Upstream: plaintext(w.silentUpstream(arrived, window)), Protocol: backs.HTTP2})
	return request.heldAt(w, arrived)
}

// heldAt is held at request.upstream, which reports each request to arrived.
func (request *heldRequest) heldAt(w *testbed, arrived <-chan struct{}) int {
	_, address := w.plain(request.upstream)
	keepStackSize(w)
	c := w.framed(w.TB.(*testing.T), address, false)
	defer c.Close()
	next := uint32(1)
	send := func(n int) {
		for range n {
			c.headers(next, append(request.fields[:2:2], append([]string{":scheme: http", ":authority: a"}, request.fields[2:]...)...), request.end)
			for body := []byte(request.body); len(body) > 0; {
				n := min(len(body), 16<<10)
				_ = c.framer.WriteData(next, false, body[:n])
				body = body[n:]
			}
			next += 2
		}
		for range n {
			<-arrived
		}
	}
	send(1)
	inUse() // settles the size of stacks
	before := inUse()
	const n = maxStreams - 1
	send(n)
	// The minimum counts, because a part of a body may still be in transit.
	held := 0
	for run := range 10 {
		if now := (inUse() - before) / n; run == 0 || now < held { // the memory of goroutines is never freed, so it counts in advance
			held = now
		}
	}
	w.Logf("%d bytes are held for each, %d KiB in all", held, held*n>>10)
	return held
}

// keepStackSize keeps the size of a new goroutine's stack, which the runtime derives from
// all stacks, the same until the test ends.
func keepStackSize(w *testbed) {
	begun, end := sync.WaitGroup{}, make(chan struct{})
	ended := sync.WaitGroup{}
	const n = 4 * maxStreams
	begun.Add(n)
	for range n {
		ended.Go(func() {
			var frame [1536]byte
			begun.Done()
			<-end
			runtime.KeepAlive(&frame)
		})
	}
	begun.Wait()
	w.Cleanup(func() { close(end); ended.Wait() })
}

// fillStackCaches makes the runtime cache as many stacks of ended goroutines each time it
// is called. What the caches hold is not held by a connection.
func fillStackCaches() {
	begin, ended := make(chan struct{}), sync.WaitGroup{}
	for range 8 * maxStreams {
		ended.Go(func() { <-begin })
	}
	close(begin)
	ended.Wait()
}

// inUse returns how much memory is in use after a collection.
func inUse() int {
	for range 3 { // also empties the pools
		runtime.GC()
	}
	fillStackCaches()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
