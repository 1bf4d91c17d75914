package l7

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

// The cost that a request may cause for each byte received, unless its row gives a
// reason for a higher cost.
const (
	maxPerByte  = 50 // nanoseconds of CPU used by both peers and the gateway
	maxHeldByte = 8  // bytes held while the gateway waits for the upstream's answer
)

// A costRow is a request with the maximum of its cost.
type costRow struct {
	name   string
	fields []string // "name: value", without Host
	target string   // "": /
	body   string   // the chunked body with its trailer; "": no body
	piece  int      // bytes that are sent at once; 0: all of them

	perByte, held float64 // limits that differ from the default
	reason        string
}

// repeated returns n fields. The format may contain the number of the field.
func repeated(n int, format string) (all []string) {
	for i := range n {
		if strings.Contains(format, "%") {
			all = append(all, fmt.Sprintf(format, i))
		} else {
			all = append(all, format)
		}
	}
	return all
}

// namedFields returns many fields of the same length that differ only in their last
// letters, and a Connection field that names 32 more of them.
func namedFields() []string {
	const prefix = "A-Name-That-Is-Long-And-The-Same-But-For-Its-Last-Letters-"
	var list []string
	for i := range 32 {
		list = append(list, fmt.Sprintf("%s%04d", prefix, i))
	}
	return append([]string{"Connection: " + strings.Join(list, ", ")}, repeated(900, prefix+"9%03d: x")...)
}

// tinyChunks returns n chunks of one byte with an extension, and a trailer.
func tinyChunks(n int, extension, trailer string) string {
	return strings.Repeat("1"+extension+"\r\nA\r\n", n) + "0\r\n" + trailer + "\r\n"
}

const headBytes = 60_000 // in bytes, just below the default limit of 65536

var costRows = []costRow{
	{name: "nothing else", perByte: 8000, held: 2000,
		reason: "a request of a few bytes is routed, forwarded and answered, at the cost of about ten system calls"},
	{name: "one long value", fields: []string{"X: " + strings.Repeat("v", headBytes)}},
	{name: "many fields", fields: repeated(900, "X-Field-%d: "+strings.Repeat("v", 50))},
	{name: "short fields", fields: repeated(990, "a: b"), perByte: 150, held: 16,
		reason: "a field of five bytes is 32 bytes in memory, is compared with the names of other fields, and counts against the 1000 of a request"},
	{name: "the same field", fields: repeated(900, "X: "+strings.Repeat("v", 60))},
	{name: "long names", fields: repeated(8, "X%d"+strings.Repeat("n", 7000)+": v")},
	{name: "Connection names fields of the same length", fields: namedFields()},
	{name: "Connection with empty elements", fields: []string{"Connection: " + strings.Repeat(",", headBytes)}},
	{name: "Connection in many fields", fields: append(repeated(30, "Connection: X-%d"), repeated(900, "X-Y-%d: "+strings.Repeat("v", 50))...)},
	{name: "TE", fields: []string{"TE: " + strings.Repeat("a, ", headBytes/3)}},
	{name: "Upgrade", fields: []string{"Upgrade: " + strings.Repeat("a, ", headBytes/3)}},
	{name: "an announced trailer", fields: []string{"Trailer: " + strings.Repeat("a,", headBytes/2)}, body: "0\r\n\r\n"},
	{name: "cookies", fields: []string{"Cookie: " + strings.Repeat("a=b; ", headBytes/5)}},
	{name: "cookies in crumbs", fields: repeated(900, "Cookie: c%d="+strings.Repeat("v", 50))},
	{name: "X-Forwarded-For", fields: []string{"X-Forwarded-For: " + strings.Repeat("127.0.0.1, ", headBytes/11)}},
	{name: "X-Forwarded-For without entries", fields: []string{"X-Forwarded-For: " + strings.Repeat(",", headBytes)}},
	{name: "X-Forwarded-For in many fields", fields: repeated(900, "X-Forwarded-For: "+strings.Repeat(" ,", 20))},
	{name: "Forwarded", fields: []string{"Forwarded: " + strings.Repeat("for=127.0.0.1, ", headBytes/15)}},
	{name: "request IDs", fields: repeated(900, "X-Request-Id: "+strings.Repeat("1", 40))},
	{name: "traces", fields: repeated(900, "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")},
	{name: "spellings of framing", fields: repeated(900, "Content_Length: "+strings.Repeat("1", 40))},
	{name: "spellings of routing", fields: repeated(900, "X_Tenant_%d: "+strings.Repeat("1", 40))},
	{name: "credentials", fields: repeated(900, "Authorization: "+strings.Repeat("x, ", 15))},
	{name: "dots in the path", target: strings.Repeat("/a/..", 6000) + "/"},
	{name: "escapes in the path", target: "/" + strings.Repeat("%41", 10_000)},
	{name: "slashes in the path", target: strings.Repeat("/", 30_000)},
	{name: "a long query", target: "/?" + strings.Repeat("a=b&", 7_500)},
	{name: "in small pieces", fields: repeated(900, "X-Field-%d: "+strings.Repeat("v", 50)), piece: 500, perByte: 150,
		reason: "each piece is a system call or two of each peer"},
	{name: "small chunks", body: tinyChunks(12_000, "", "")},
	{name: "chunk extensions", body: tinyChunks(300, ";name=value", ""), perByte: 150, reason: "small chunks; and the request is small, because extensions may have 4 KiB"},
	{name: "a trailer", body: tinyChunks(1, "", strings.Repeat("X-Trailer-Field: "+strings.Repeat("v", 50)+"\r\n", 200))},
	{name: "a trailer of short fields", body: tinyChunks(1, "", strings.Repeat("a: b\r\n", 900)), perByte: 150, held: 24,
		reason: "for the same reason as \"short fields\""},
}

// cpu returns the CPU time that the process has used.
func cpu(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A costSink is a plaintext upstream that reads requests at little cost, and answers
// them unless it holds them.
type costSink struct {
	arrived chan struct{}
	mu      sync.Mutex
	hold    chan struct{} // nil: requests are not held
}

// set makes the sink hold requests until release is closed, or hold none if
// release is nil.
func (s *costSink) set(release chan struct{}) {
	s.mu.Lock()
	s.hold = release
	s.mu.Unlock()
}

func (s *costSink) serve(c net.Conn) {
	buf := make([]byte, 64<<10)
	for kept, ends := 0, 0; ; {
		n, err := c.Read(buf[kept:])
		if err != nil {
			return
		}
		if ends == 0 && kept == 0 {
			if ends = 1; buf[0] == 'P' {
				ends = 2 // the header and the body each end with an empty line
			}
		}
		data := buf[:kept+n]
		ends -= bytes.Count(data, []byte("\r\n\r\n"))
		if ends > 0 {
			kept = copy(buf, data[max(len(data)-3, 0):])
			continue
		}
		kept, ends = 0, 0
		s.mu.Lock()
		hold := s.hold
		s.mu.Unlock()
		if hold != nil {
			s.arrived <- struct{}{}
			<-hold
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
			return
		}
	}
}

// A costClient sends a row's request again and again.
type costClient interface {
	send()
	await(t testing.TB)
	size() int // the size of a request in bytes
}

type costClient1 struct {
	c       *rawConn
	request []byte
	piece   int
}

func newCostClient1(w *testbed, address string, row *costRow) costClient {
	method := "GET"
	fields := row.fields
	if row.body != "" {
		method, fields = "POST", append([]string{"Transfer-Encoding: chunked"}, fields...)
	}
	target := row.target
	if target == "" {
		target = "/"
	}
	request := method + " " + target + " HTTP/1.1\r\nHost: a\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n" + row.body
	piece := row.piece
	if piece == 0 {
		piece = len(request)
	}
	return &costClient1{w.dial(address), []byte(request), piece}
}

func (c *costClient1) size() int { return len(c.request) }

func (c *costClient1) send() {
	for rest := c.request; len(rest) > 0; {
		n := min(c.piece, len(rest))
		_, _ = c.c.Write(rest[:n]) // await reports a failure
		rest = rest[n:]
	}
}

func (c *costClient1) await(t testing.TB) {
	if res, body := c.c.answer(t, "GET"); res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
}

type costClient2 struct {
	*framed
	head, trailer []byte // nil: no trailer
	body          bool
	stream        uint32
}

// newCostClient2 returns nil if a row applies only to HTTP/1.
func newCostClient2(w *testbed, address string, row *costRow) costClient {
	method, target := "GET", row.target
	if target == "" {
		target = "/"
	}
	var trailer []string
	if row.body != "" {
		chunks, rest, _ := strings.Cut(row.body, "0\r\n")
		if len(chunks) > len("1\r\nA\r\n") {
			return nil
		}
		method = "POST"
		if rest = strings.TrimSuffix(rest, "\r\n"); rest != "" {
			trailer = strings.Split(strings.TrimSuffix(rest, "\r\n"), "\r\n")
		}
	}
	for _, f := range row.fields {
		switch name, _, _ := strings.Cut(f, ":"); name {
		case "Connection", "TE", "Upgrade":
			return nil
		}
	}
	c := &costClient2{framed: w.framed(w.TB.(*testing.T), address, false), body: method == "POST", stream: 1}
	c.head = headerBlock(append([]string{":method: " + method, ":scheme: http", ":authority: a", ":path: " + target}, row.fields...))
	if trailer != nil {
		c.trailer = headerBlock(trailer)
	}
	return c
}

// headerBlock returns a block that adds no fields to the dynamic table, so that it
// can be sent again.
func headerBlock(fields []string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0)
	for _, f := range fields {
		at := 1 + strings.Index(f[1:], ":")
		_ = e.WriteField(hpack.HeaderField{Name: strings.ToLower(f[:at]), Value: strings.Trim(f[at+1:], " ")}) // a Buffer cannot fail
	}
	return b.Bytes()
}

func (c *costClient2) size() int {
	n := frameHeader + len(c.head)
	if c.body || c.trailer != nil {
		n += frameHeader + len(c.trailer)
	}
	return n
}

// frameHeader is the size of the header of an HTTP/2 frame.
const frameHeader = 9

func (c *costClient2) send() {
	c.writeBlock(c.head, !c.body)
	switch {
	case c.trailer != nil:
		c.writeBlock(c.trailer, true)
	case c.body:
		_ = c.framer.WriteData(c.stream, true, nil) // await reports a failure
	}
	c.stream += 2
}

func (c *costClient2) writeBlock(b []byte, end bool) {
	const most = 16384 // maximum payload of a frame
	first := b[:min(len(b), most)]
	b = b[len(first):]
	_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: first, EndStream: end, EndHeaders: len(b) == 0})
	for len(b) > 0 {
		n := min(len(b), most)
		_ = c.framer.WriteContinuation(c.stream, n == len(b), b[:n])
		b = b[n:]
	}
}

// await reads until a stream ends.
func (c *costClient2) await(t testing.TB) {
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			if !bytes.Contains(f.HeaderBlockFragment(), []byte{0x88}) { // :status 200
				t.Fatalf("stream %d is not answered with 200", f.StreamID)
			}
			if f.StreamEnded() {
				return
			}
		case *http2.RSTStreamFrame:
			t.Fatalf("%v: %v", f, f.ErrCode)
		case *http2.GoAwayFrame:
			t.Fatalf("%v: %v %q", f, f.ErrCode, f.DebugData())
		}
	}
}

// costTestbed starts a gateway in front of a costSink, with every feature enabled that
// reads fields.
func costTestbed(t *testing.T) (w *testbed, s *costSink, address string) {
	w, s = newTestbed(t), &costSink{arrived: make(chan struct{}, 1000)}
	proxies, _ := cidr.ParsePeers([]string{"127.0.0.1"})
	tenant := "1"
	action := to(w.newBack(backs.Options{Upstream: plaintext(w.raw(nil, s.serve)), Protocol: backs.HTTP1}))
	action.RequestHeaders = policy.HeaderRules{Remove: []string{"X-Removed"}, Set: values("X-Set: 1")}
	// At the level debug, requests wait for each other's log lines after they were answered,
	// and too many at once may still wait when the next one arrives.
	address = w.serve(New(Options{Listener: "front", Logger: w.logger(hclog.Info), Table: fixed(&Table{
		MaxHeaderBytes: 128 << 10, // HTTP/2 counts 32 bytes more for each field
		TrustedProxies: proxies, MakeTrace: true, RequestIDField: "X-Request-Id", Forwarding: policy.SendBoth, Default: action,
		Routes: w.routes(route.Rule[*Action]{Name: "tenant", Headers: []route.Header{{Name: "X-Tenant", Exact: &tenant}}, Value: action}),
	})}))
	return w, s, address
}

// costClients maps each HTTP version to a function that creates the client of a
// row.
var costClients = map[string]func(w *testbed, address string, row *costRow) costClient{"HTTP/1": newCostClient1, "HTTP/2": newCostClient2}

func TestRowsWithAHigherLimitGiveAReason(t *testing.T) {
	for _, row := range costRows {
		if (row.perByte > maxPerByte || row.held > maxHeldByte) != (row.reason != "") {
			t.Errorf("%s: %.0f ns, %.0f bytes held, %q", row.name, row.perByte, row.held, row.reason)
		}
	}
}

// The CPU cost of a request's header and trailer is small and proportional to
// their size, for any content.
func TestCPUForEachByteOfAHeader(t *testing.T) {
	w, _, address := costTestbed(t)
	for i := range costRows {
		row := &costRows[i]
		for version, newClient := range costClients {
			c := newClient(w, address, row)
			if c == nil {
				continue
			}
			t.Run(row.name+", "+version, func(t *testing.T) { measureCPU(t, c, row) })
		}
	}
}

func measureCPU(t *testing.T, c costClient, row *costRow) {
	most, least := max(row.perByte, maxPerByte), 0.0
	requests := min(max(1, 500_000/c.size()), 1000)
	if alloctest.Race {
		requests = 1
	}
	// Other load on the machine adds to the time, so the shortest of several runs
	// counts.
	for run := range 10 {
		before := cpu(t)
		for range requests {
			c.send()
			c.await(t)
		}
		if each := float64(cpu(t)-before) / float64(requests*c.size()); run == 0 || each < least {
			least = each
		}
		if alloctest.Race {
			break // the first run costs much more
		}
		if run >= 1 && least < min(most/2, maxPerByte/5) {
			break
		}
	}
	alloctest.ReportCost(t, c.size(), math.NaN(), least, row.reason)
	if least > most && !alloctest.Race {
		t.Errorf("%.1f ns for each byte, want at most %.0f", least, most)
	}
}

// A request that waits for its upstream holds memory in proportion to its bytes.
func TestMemoryForEachByteOfAHeader(t *testing.T) {
	if alloctest.Race {
		t.Skip("the race detector's memory is in the sum")
	}
	w, s, address := costTestbed(t)
	inUse := func() float64 {
		runtime.GC()
		runtime.GC() // empties the pools
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	const each = 10
	for i := range costRows {
		row := &costRows[i]
		for version, newClient := range costClients {
			var clients []costClient
			for range each {
				if c := newClient(w, address, row); c != nil {
					c.send()
					c.await(t)
					clients = append(clients, c)
				}
			}
			if clients == nil {
				continue
			}
			measure := func() float64 {
				release := make(chan struct{})
				s.set(release)
				before := inUse()
				for _, c := range clients {
					c.send()
				}
				for range clients {
					<-s.arrived
				}
				held := (inUse() - before) / float64(each*clients[0].size())
				s.set(nil)
				close(release)
				for _, c := range clients {
					c.await(t)
				}
				return held
			}
			// The minimum of several runs counts: a buffer may not be returned yet when
			// the upstream has the whole request, and other tests may end meanwhile.
			most, least := max(row.held, maxHeldByte), math.Inf(1)
			for run := 0; run < 10 && least > most; run++ {
				least = min(least, measure())
			}
			t.Run(row.name+", "+version, func(t *testing.T) {
				alloctest.ReportCost(t, clients[0].size(), least, math.NaN(), row.reason)
				if least > most {
					t.Errorf("%.1f bytes held for each byte, want at most %.0f", least, most)
				}
			})
		}
	}
}
