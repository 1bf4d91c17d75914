package http2

import (
	"bytes"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

const (
	maxHeldPerByte = 8  // bytes held for each byte received
	maxCostPerByte = 50 // nanoseconds of CPU for each byte received
	maxHeld        = 1 << 20
)

// A resourceRow is input that a peer may send. All of it is sent before
// anything is measured.
type resourceRow struct {
	name     string
	toClient bool // the peer is a server
	input    func(f *h2.Framer, b *blockWriter)

	held    int  // bytes held for each byte received; 0: maxHeldPerByte
	cost    int  // nanoseconds for each byte received; 0: maxCostPerByte
	windows int  // bytes of offered windows that it fills
	ends    bool // a part of it ends the connection
	reason  string
}

// A blockWriter encodes header blocks.
type blockWriter struct {
	buf bytes.Buffer
	enc *hpack.Encoder
}

func (b *blockWriter) block(fields ...string) []byte {
	b.buf.Reset()
	for _, f := range fields {
		i := strings.Index(f[1:], ": ") + 1
		_ = b.enc.WriteField(hpack.HeaderField{Name: f[:i], Value: f[i+2:]})
	}
	return bytes.Clone(b.buf.Bytes())
}

func (b *blockWriter) open(f *h2.Framer, id uint32, end bool, fields ...string) {
	_ = f.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: b.block(fields...), EndHeaders: true, EndStream: end})
}

// frames repeats a frame.
func frames(n int, write func(f *h2.Framer, i int)) func(*h2.Framer, *blockWriter) {
	return func(f *h2.Framer, _ *blockWriter) {
		for i := range n {
			write(f, i)
		}
	}
}

// body sends a body in frames of the given sizes, on each of several streams.
func body(streams int, head []string, sizes ...int) func(*h2.Framer, *blockWriter) {
	return func(f *h2.Framer, b *blockWriter) {
		for s := range uint32(streams) {
			b.open(f, 2*s+1, false, head...)
			for sent, i := 0, 0; sent < firstWindow; i++ {
				n := min(sizes[i%len(sizes)], firstWindow-sent)
				_ = f.WriteData(2*s+1, false, make([]byte, n))
				sent += n
			}
		}
	}
}

// references sends requests that each refer n times to a field of the first one.
func references(field string, n int) func(*h2.Framer, *blockWriter) {
	return func(f *h2.Framer, b *blockWriter) {
		b.open(f, 1, true, with(simple, field)...)
		for id := range uint32(200) {
			block := b.block(simple...)
			for range n {
				block = append(block, 0x80|62) // table index of the first request's field
			}
			_ = f.WriteHeaders(h2.HeadersFrameParam{StreamID: 2*id + 3, BlockFragment: block, EndHeaders: true, EndStream: true})
		}
	}
}

// manyRequests is the reason for the costs of rows with complete requests.
const manyRequests = "a request of a few bytes has a goroutine that serves it, and fields that count at their full size"

// resourceRows covers every place where a peer's input is stored or costs work.
var resourceRows = []resourceRow{
	{name: "unread bodies, in frames of 1 byte", input: body(1, simplePost, 1), windows: firstWindow},
	{name: "unread bodies, in frames of 100 bytes", input: body(8, simplePost, 100), windows: 8 * firstWindow},
	{name: "unread bodies, in frames just over a chunk", input: body(8, simplePost, smallChunk+1), windows: 8 * firstWindow},
	{name: "unread bodies, in whole frames", input: body(8, simplePost, maxFrame), windows: 8 * firstWindow},
	{name: "unread bodies, from a server", toClient: true, windows: firstWindow, input: func(f *h2.Framer, b *blockWriter) {
		body(1, []string{":status: 200"}, 1)(f, b)
	}},
	{name: "padding", windows: firstWindow, input: func(f *h2.Framer, b *blockWriter) {
		b.open(f, 1, false, simplePost...)
		for range firstWindow / 257 {
			_ = f.WriteDataPadded(1, false, []byte("x"), make([]byte, 255))
		}
	}},

	{name: "PING", input: frames(20_000, func(f *h2.Framer, i int) { _ = f.WritePing(false, [8]byte{}) })},
	{name: "PING acknowledgments", input: frames(20_000, func(f *h2.Framer, i int) { _ = f.WritePing(true, [8]byte{}) })},
	{name: "SETTINGS", input: frames(20_000, func(f *h2.Framer, i int) { _ = f.WriteSettings(h2.Setting{ID: 99, Val: 1}) })},
	{name: "SETTINGS with windows", input: frames(20_000, func(f *h2.Framer, i int) {
		_ = f.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: uint32(i)})
	})},
	{name: "WINDOW_UPDATE", input: frames(20_000, func(f *h2.Framer, i int) { _ = f.WriteWindowUpdate(0, 1) })},
	{name: "PRIORITY", input: frames(20_000, func(f *h2.Framer, i int) { _ = f.WritePriority(1, h2.PriorityParam{StreamDep: 3}) })},
	{name: "unknown frames", input: frames(20_000, func(f *h2.Framer, i int) { _ = f.WriteRawFrame(0x77, 0, 0, nil) })},
	{name: "large unknown frames", input: frames(60, func(f *h2.Framer, i int) { _ = f.WriteRawFrame(0x77, 0, 0, make([]byte, maxFrame)) })},
	{name: "empty DATA", input: func(f *h2.Framer, b *blockWriter) {
		b.open(f, 1, false, simplePost...)
		for range 30_000 {
			_ = f.WriteData(1, false, nil)
		}
	}},
	{name: "DATA on a reset stream", input: func(f *h2.Framer, b *blockWriter) {
		b.open(f, 1, false, with(simplePost, "connection: close")...)
		for range 80_000 {
			_ = f.WriteData(1, false, []byte("x"))
		}
	}},
	{name: "HEADERS on a reset stream", input: func(f *h2.Framer, b *blockWriter) {
		b.open(f, 1, false, with(simplePost, "connection: close")...)
		for range 20_000 {
			b.open(f, 1, true, "x: y")
		}
	}},

	{name: "requests", held: 1000, cost: 4000, reason: "each has a goroutine that serves it", input: func(f *h2.Framer, b *blockWriter) {
		for id := range uint32(250) {
			b.open(f, 2*id+1, true, simple...)
		}
	}},
	{name: "requests with large heads", input: func(f *h2.Framer, b *blockWriter) {
		for id := range uint32(40) {
			block := b.block(with(simple, "x: "+strings.Repeat("{", 50_000))...)
			_ = f.WriteHeaders(h2.HeadersFrameParam{StreamID: 2*id + 1, BlockFragment: block[:maxFrame], EndStream: true})
			for block = block[maxFrame:]; len(block) > 0; {
				n := min(len(block), maxFrame)
				_ = f.WriteContinuation(2*id+1, n == len(block), block[:n])
				block = block[n:]
			}
		}
	}},
	{name: "SETTINGS that change the windows of streams", held: 1000, cost: 4000, reason: "the requests have goroutines that serve them", input: func(f *h2.Framer, b *blockWriter) {
		for id := range uint32(200) {
			b.open(f, 2*id+1, true, simple...)
		}
		for i := range 20_000 {
			_ = f.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: uint32(i)})
		}
	}},
	{name: "a header block that never ends", input: func(f *h2.Framer, b *blockWriter) {
		_ = f.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: literals(1000)})
		for range 7 {
			_ = f.WriteContinuation(1, false, literals(1500))
		}
	}},
	{name: "references to a large field", held: 1000, cost: 500, reason: manyRequests, input: references("x: "+strings.Repeat("a", 3900), 14)},
	{name: "references to a field with a long name", held: 1000, cost: 500, reason: manyRequests, input: references(strings.Repeat("a", 3900)+": x", 14)},
	{name: "references to a small field", held: 1000, cost: 500, reason: manyRequests, input: references("x: y", 240)},
	{name: "malformed requests", ends: true, cost: 400, reason: "100 of them end the connection", input: func(f *h2.Framer, b *blockWriter) {
		for id := range uint32(2000) {
			b.open(f, 2*id+1, true, ":method: GET")
		}
	}},
	{name: "requests that are reset", ends: true, cost: 4000, reason: "500 of them end the connection", input: func(f *h2.Framer, b *blockWriter) {
		for id := range uint32(2000) {
			b.open(f, 2*id+1, true, simple...)
			_ = f.WriteRSTStream(2*id+1, h2.ErrCodeCancel)
		}
	}},
	{name: "interim responses", toClient: true, windows: 64 << 10, input: func(f *h2.Framer, b *blockWriter) {
		b.enc.SetMaxDynamicTableSize(0) // each head has its own bytes
		for range 60 {
			b.open(f, 1, false, ":status: 103", "link: "+strings.Repeat("a", 1000))
		}
	}},
}

// A scriptedPeer is a peer that sends its bytes, reads everything, and then waits.
type scriptedPeer struct {
	net.Conn // one end of an unused pipe, for its deadlines
	left     []byte
	taken    chan struct{} // closed when everything was read or the connection was closed
	once     sync.Once
}

func (f *scriptedPeer) Read(p []byte) (int, error) {
	if len(f.left) == 0 {
		f.once.Do(func() { close(f.taken) })
		return f.Conn.Read(p)
	}
	n := copy(p, f.left)
	f.left = f.left[n:]
	return n, nil
}

func (f *scriptedPeer) Write(p []byte) (int, error) { return len(p), nil }

func (f *scriptedPeer) Close() error {
	f.once.Do(func() { close(f.taken) })
	return f.Conn.Close()
}

// inUse returns how much memory is in use after a garbage collection.
func inUse() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// cpuTime returns how much CPU the process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A row may cost more than the default only if it says why.
func TestRowsWithAHigherBoundGiveAReason(t *testing.T) {
	for _, row := range resourceRows {
		if higher := row.held > maxHeldPerByte || row.cost > maxCostPerByte; higher != (row.reason != "") {
			t.Errorf("%s: %d bytes held, %d ns, %q", row.name, row.held, row.cost, row.reason)
		}
	}
}

// Each byte that a peer sends costs no more memory and CPU than the table
// allows.
func TestResourcesAreBounded(t *testing.T) {
	for _, row := range resourceRows {
		t.Run(row.name, func(t *testing.T) {
			var input bytes.Buffer
			if !row.toClient {
				input.WriteString(h2.ClientPreface)
			}
			f, b := h2.NewFramer(&input, nil), &blockWriter{}
			f.AllowIllegalWrites = true
			b.enc = hpack.NewEncoder(&b.buf)
			_ = f.WriteSettings()
			row.input(f, b)
			size := input.Len()

			near, far := net.Pipe()
			defer far.Close()
			nc := &scriptedPeer{Conn: near, left: input.Bytes(), taken: make(chan struct{})}
			hold := make(chan struct{})
			var ended sync.WaitGroup
			var closeConn func()
			before := inUse()
			start := cpuTime()
			if row.toClient {
				c := NewClientConn(nc, Options{})
				s := c.Open()
				defer s.Done()
				if err := s.Send(get("/"), true); err != nil {
					t.Fatal(err)
				}
				closeConn = c.Close
				ended.Go(func() { _ = c.Run() })
			} else {
				c := NewServerConn(nc, nil, Options{})
				closeConn = c.Close
				ended.Go(func() {
					_ = c.Serve(func(s *ServerStream) {
						gone := make(chan struct{})
						s.Notify(func(error) { close(gone) })
						select {
						case <-hold:
						case <-gone:
						}
						_ = s.Respond(&message.Response{Status: 204}, true)
					})
				})
			}
			<-nc.taken
			cost := cpuTime() - start
			used := size - len(nc.left)
			most := max(row.held, maxHeldPerByte)*used + maxHeld/8
			held := inUse() - before - len(nc.left)
			// On a busy machine the goroutines of streams that were reset may still wait
			// for a core before they can end.
			for deadline := time.Now().Add(testTimeout); held > most && time.Now().Before(deadline); held = inUse() - before - len(nc.left) {
				runtime.Gosched()
			}
			close(hold)
			closeConn()
			ended.Wait()

			// A window is memory that the connection itself has offered.
			if row.ends {
				alloctest.ReportEnd(t, used, cost)
			} else {
				alloctest.ReportCost(t, used, max(float64(held-row.windows), 0)/float64(used), float64(cost)/float64(used), row.reason)
			}
			if held > most {
				t.Errorf("%d bytes are held for %d bytes of input", held, used)
			}
			if held > maxHeld+row.windows {
				t.Errorf("%d bytes are held", held)
			}
			if alloctest.Race {
				return
			}
			if most := max(row.cost, maxCostPerByte); cost > time.Duration(most*used)+5*time.Millisecond {
				t.Errorf("%v of CPU for %d bytes: %d ns each", cost, used, int(cost)/used)
			}
		})
	}
}
