package http2

import (
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// flood sends rounds until the other side ends the connection, and returns the
// code.
func flood(t *testing.T, r *raw, round func(i int)) h2.ErrCode {
	t.Helper()
	stop := make(chan struct{})
	sent := make(chan struct{})
	_ = r.SetDeadline(time.Now().Add(3 * testTimeout))
	go func() {
		defer close(sent)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				round(i)
			}
		}
	}()
	defer func() {
		r.Conn.Close()
		<-sent
	}()
	defer close(stop)
	reader := h2.NewFramer(io.Discard, r.Conn) // the other goroutine uses r's framer
	for {
		f, err := reader.ReadFrame()
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Fatal("the flood was not stopped")
			}
			return 0xff // closed, and its GOAWAY was lost
		}
		if g, ok := f.(*h2.GoAwayFrame); ok {
			return g.ErrCode
		}
	}
}

// Frames that cost this side something and achieve nothing end the connection,
// whether the peer is a client or a server.
func TestFloodsAreStopped(t *testing.T) {
	id := func(i int) uint32 { return uint32(2*i + 1) }
	type row struct {
		name  string
		round func(r *raw, i int)
	}
	both := []row{
		{"PING", func(r *raw, i int) { _ = r.WritePing(false, [8]byte{}) }},
		{"PING answers", func(r *raw, i int) { _ = r.WritePing(true, [8]byte{}) }},
		{"SETTINGS", func(r *raw, i int) { _ = r.WriteSettings() }},
		{"full SETTINGS", func(r *raw, i int) {
			_ = r.WriteRawFrame(h2.FrameSettings, 0, 0, []byte(strings.Repeat("\x00\x09\x00\x00\x00\x00", maxFrame/6)))
		}},
		{"SETTINGS of the table", func(r *raw, i int) {
			_ = r.WriteSettings(h2.Setting{ID: h2.SettingHeaderTableSize, Val: uint32(i % 4097)})
		}},
		{"WINDOW_UPDATE", func(r *raw, i int) { _ = r.WriteWindowUpdate(0, 1) }},
		{"PRIORITY", func(r *raw, i int) { _ = r.WritePriority(id(i), h2.PriorityParam{StreamDep: 1 << 30}) }},
		{"PRIORITY_UPDATE", func(r *raw, i int) { _ = r.WritePriorityUpdate(1, "u=1") }},
		{"unknown frames", func(r *raw, i int) { _ = r.WriteRawFrame(0x77, 0, 0, nil) }},
		{"empty DATA", func(r *raw, i int) { _ = r.WriteData(1, false, nil) }},
		{"DATA with only padding", func(r *raw, i int) { _ = r.WriteDataPadded(1, false, nil, make([]byte, 3)) }},
		{"CONTINUATION", func(r *raw, i int) {
			if i == 0 {
				_ = r.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: r.encode(simple...)})
			}
			_ = r.WriteContinuation(1, false, r.encode("x: y"))
		}},
		{"empty CONTINUATION", func(r *raw, i int) {
			if i == 0 {
				_ = r.WriteHeaders(h2.HeadersFrameParam{StreamID: 1})
			}
			_ = r.WriteContinuation(1, false, nil)
		}},
		{"large CONTINUATION", func(r *raw, i int) {
			if i == 0 {
				_ = r.WriteHeaders(h2.HeadersFrameParam{StreamID: 1})
			}
			_ = r.WriteContinuation(1, false, literals(maxFrame/10))
		}},
	}
	clients := append([]row{
		{"rapid reset", func(r *raw, i int) {
			r.headersQuietly(id(i), true, simple...)
			_ = r.WriteRSTStream(id(i), h2.ErrCodeCancel)
		}},
		{"rapid reset of bodies", func(r *raw, i int) {
			r.headersQuietly(id(i), false, simplePost...)
			_ = r.WriteData(id(i), false, []byte("x"))
			_ = r.WriteRSTStream(id(i), h2.ErrCodeCancel)
		}},
		{"made you reset: WINDOW_UPDATE by zero", func(r *raw, i int) {
			r.headersQuietly(id(i), true, simple...)
			_ = r.WriteWindowUpdate(id(i), 0)
		}},
		{"made you reset: a window too large", func(r *raw, i int) {
			r.headersQuietly(id(i), true, simple...)
			_ = r.WriteWindowUpdate(id(i), maxWindow)
		}},
		{"made you reset: DATA after the end", func(r *raw, i int) {
			r.headersQuietly(id(i), true, simple...)
			_ = r.WriteData(id(i), false, []byte("x"))
		}},
		{"made you reset: HEADERS after the end", func(r *raw, i int) {
			r.headersQuietly(id(i), true, simple...)
			r.headersQuietly(id(i), true, "x: y")
		}},
		{"made you reset: a stream that depends on itself", func(r *raw, i int) {
			r.headersQuietly(id(i), true, simple...)
			_ = r.WritePriority(id(i), h2.PriorityParam{StreamDep: id(i)})
		}},
		{"made you reset: a body longer than its Content-Length", func(r *raw, i int) {
			r.headersQuietly(id(i), false, with(simplePost, "content-length: 1")...)
			_ = r.WriteData(id(i), false, []byte("xx"))
		}},
		{"malformed requests", func(r *raw, i int) { r.headersQuietly(id(i), true, with(simple, "connection: close")...) }},
		{"heads too large", func(r *raw, i int) {
			_ = r.WriteHeaders(h2.HeadersFrameParam{StreamID: id(i), BlockFragment: literals(1000), EndHeaders: true, EndStream: true})
		}},
		{"more streams than allowed", func(r *raw, i int) { r.headersQuietly(id(i), true, simple...) }},
		{"RST_STREAM on closed streams", func(r *raw, i int) {
			if i == 0 {
				r.headersQuietly(1, true, simple...)
			}
			_ = r.WriteRSTStream(1, h2.ErrCodeCancel)
		}},
		{"DATA on reset streams to pay for PING", func(r *raw, i int) {
			if i == 0 {
				r.headersQuietly(1, false, with(simplePost, "connection: close")...)
			}
			_ = r.WriteData(1, false, []byte("x"))
			_ = r.WritePing(false, [8]byte{})
		}},
		{"HEADERS on reset streams to pay for PING", func(r *raw, i int) {
			if i == 0 {
				r.headersQuietly(1, false, with(simplePost, "connection: close")...)
			}
			r.headersQuietly(1, true, "x: y")
			for range 4 {
				_ = r.WritePing(false, [8]byte{})
			}
		}},
		{"a window that opens by a byte at a time", func(r *raw, i int) {
			if i == 0 {
				_ = r.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 1})
				r.headersQuietly(1, true, endless...)
			}
			_ = r.WriteWindowUpdate(1, 1)
			_ = r.WriteWindowUpdate(0, 1)
		}},
		{"DATA on closed streams", func(r *raw, i int) {
			if i == 0 {
				r.headersQuietly(1, false, simplePost...)
				_ = r.WriteRSTStream(1, h2.ErrCodeCancel)
			}
			_ = r.WriteData(1, false, nil)
		}},
	}, both...)
	for _, c := range clients {
		t.Run("client/"+c.name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			nc, _ := serve(t, Options{}, func(s *ServerStream) {
				if s.Request().Target == "/endless" {
					_ = s.Respond(ok(), false)
					for s.Write(make([]byte, 1000)) == nil {
					}
				}
				<-release
			})
			defer close(release)
			r := rawClient(t, nc)
			if !strings.Contains(c.name, "CONTINUATION") && c.name != "heads too large" && strings.Contains(c.name, "DATA that") || c.name == "empty DATA" {
				r.headers(1, false, simplePost...)
			}
			if code := flood(t, r, func(i int) { c.round(r, i) }); code == h2.ErrCodeNo {
				t.Errorf("%v", code)
			}
		})
	}
	for _, c := range both {
		t.Run("server/"+c.name, func(t *testing.T) {
			t.Parallel()
			client, nc := dial(t, Options{})
			r := rawServer(t, nc)
			s := client.Open()
			defer s.Done()
			if err := s.Send(get("/"), true); err != nil {
				t.Fatal(err)
			}
			r.takeRequest()
			if strings.Contains(c.name, "DATA") {
				r.headers(1, false, ":status: 200")
			}
			if code := flood(t, r, func(i int) { c.round(r, i) }); code == h2.ErrCodeNo {
				t.Errorf("%v", code)
			}
			var head message.Response
			err := s.Receive(&head)
			if err == nil {
				_, err = readAll(s)
			}
			if err == nil {
				t.Error("the response looks complete")
			}
		})
	}
}

var endless = []string{":method: GET", ":scheme: https", ":path: /endless", ":authority: a.test"}

// headersQuietly is headers without errors: the connection may be closed.
func (r *raw) headersQuietly(id uint32, end bool, fields ...string) {
	_ = r.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: r.encode(fields...), EndStream: end, EndHeaders: true})
}

// literals returns a block of n fields that are in no table.
func literals(n int) []byte {
	return []byte(strings.Repeat("\x00\x01x\x05value", n))
}

// A block that is small on the wire and huge when decoded costs no more than
// allowed.
func TestAnHPACKBombIsRejected(t *testing.T) {
	nc, _ := serve(t, Options{}, echo)
	r := rawClient(t, nc)
	r.headers(1, true, with(simple, "x: "+strings.Repeat("a", 4000))...)
	if got := r.outcome(1); !strings.HasPrefix(got, "200") {
		t.Fatal(got)
	}
	block := r.encode(simple...)
	for range 15_000 {
		block = append(block, 0x80|62) // the field of the first request
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r.must(r.WriteHeaders(h2.HeadersFrameParam{StreamID: 3, BlockFragment: block, EndHeaders: true, EndStream: true}))
	if got := r.outcome(3); got != "431" {
		t.Error(got)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 10<<20 {
		t.Errorf("%d bytes for a block of %d", n, len(block))
	}
	r.headers(5, true, simple...)
	if got := r.outcome(5); !strings.HasPrefix(got, "200") {
		t.Error(got)
	}
}

// A string longer than the limit for heads is not even assembled.
func TestAStringLongerThanAHeadIsRejected(t *testing.T) {
	nc, _ := serve(t, Options{MaxHeaderBytes: 4 << 10}, echo)
	r := rawClient(t, nc)
	block := append(r.encode(simple...), 0x00, 0x01, 'x')
	block = hpack.AppendHuffmanString(append(block, 0xff, 0x81, 0x60), strings.Repeat("0", 1000)) // declares 12,416 bytes
	r.must(r.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true, EndStream: true}))
	if got := r.outcome(1); got != "GOAWAY COMPRESSION_ERROR" {
		t.Error(got)
	}
}

// A fast but honest peer does not exhaust a budget.
func TestHonestTrafficIsNotAFlood(t *testing.T) {
	c, s := connected(t, Options{}, Options{}, echo)
	for range 3000 {
		st := c.Open()
		if st == nil {
			t.Fatalf("no room: %v", c.Err())
		}
		_ = st.Send(post("/"), false)
		_ = st.Write([]byte("x"))
		_ = st.End(nil)
		if _, body, err := receive(st); err != nil || body != "x" {
			t.Fatal(err)
		}
		st.Done()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for a, b := range s.abuse.budgets {
		if b.left < b.full/2 {
			t.Errorf("account %d has %d left", a, b.left)
		}
	}
}

// A client may cancel some of its requests.
func TestSomeResetsAreAllowed(t *testing.T) {
	nc, _ := serve(t, Options{}, func(s *ServerStream) {
		if s.Request().Method == "POST" {
			_, _ = readAll(s)
			return
		}
		echo(s)
	})
	r := rawClient(t, nc)
	for id := uint32(1); id < 2000; id += 4 {
		r.headers(id, false, simplePost...)
		r.must(r.WriteRSTStream(id, h2.ErrCodeCancel))
		r.headers(id+2, true, simple...)
		if got := r.outcome(id + 2); !strings.HasPrefix(got, "200") {
			t.Fatal(got)
		}
	}
}
