package l4_test

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A stall is a phase in which a connection makes no progress.
type stall struct {
	name   string
	tls    bool   // the listener has TLS
	says   []byte // the bytes that each client sends without an answer
	reason certs.Reason
	most   int64 // bytes that the gate may hold for each connection

	// upstream returns an endpoint that stalls. Nil: the client stalls.
	upstream func(*testing.T) upstream.EndpointOptions
}

// stalls returns every phase before bytes flow.
func stalls(t *testing.T, p pki) []stall {
	whole := hello(t)
	// The longest valid hello, without its last byte.
	largest := append([]byte{1, 0, 0xff, 0xff}, make([]byte, 0xffff-1)...)
	var records []byte
	for r := range slices.Chunk(largest, 1<<14) {
		records = append(append(records, 0x16, 3, 1, byte(len(r)>>8), byte(len(r))), r...)
	}
	flood := make([]byte, 8<<20) // far more than the gate may hold
	silent := func(t *testing.T) upstream.EndpointOptions {
		return over(t, listen(t, "tcp"), p.upstream(t, "x.test")) // the kernel accepts connections, but no process does
	}
	unreachable := func(t *testing.T) upstream.EndpointOptions {
		return upstream.EndpointOptions{Network: "tcp", Address: full(t)}
	}
	return []stall{
		{name: "says nothing", tls: true, reason: certs.ReasonHandshakeTimeout, most: 64 << 10},
		{name: "within the hello", tls: true, says: whole[:len(whole)/2], reason: certs.ReasonHandshakeTimeout, most: 64 << 10},
		{name: "within the largest hello", tls: true, says: records, reason: certs.ReasonHandshakeTimeout, most: 320 << 10},
		{name: "after the hello", tls: true, says: whole, reason: certs.ReasonHandshakeTimeout, most: 96 << 10},
		{name: "upstream does not handshake", says: []byte("hello"), reason: certs.ReasonHandshakeTimeout, most: 96 << 10, upstream: silent},
		{name: "upstream does not handshake, and the client floods", says: flood, reason: certs.ReasonHandshakeTimeout, most: 96 << 10, upstream: silent},
		{name: "upstream does not answer", says: []byte("hello"), reason: certs.ReasonConnectTimeout, most: 64 << 10, upstream: unreachable},
		{name: "upstream does not answer, and the client floods", says: flood, reason: certs.ReasonConnectTimeout, most: 64 << 10, upstream: unreachable},
	}
}

// full returns an address whose accept queue is full: the kernel drops further
// connections, like a network that loses packets.
func full(t *testing.T) string {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*syscall.SockaddrInet4).Port))
	// A busy machine may stall for as long as a dial may take, so it must fail several times.
	for failed := 0; failed < 3; failed++ {
		if c, err := net.DialTimeout("tcp", address, 100*time.Millisecond); err == nil {
			t.Cleanup(func() { c.Close() })
			failed = -1
		}
	}
	return address
}

// begin connects n clients to a gate where they stall until limit has passed.
func (s stall) begin(t *testing.T, p pki, limit time.Duration, n int) (g *gate, u *upstream.Upstream, clients []*peer) {
	t.Helper()
	table := &l4.Table{HandshakeTimeout: limit}
	if s.tls {
		table.TLS = p.listener(t, "gate.test")
	}
	if s.upstream != nil {
		connectLimit := limit
		if s.reason != certs.ReasonConnectTimeout {
			connectLimit = time.Hour // a busy machine may take longer than limit to connect
		}
		u = upstream.New(upstream.Options{Name: "stalls", ConnectTimeout: connectLimit, HandshakeTimeout: limit, Endpoints: []upstream.EndpointOptions{s.upstream(t)}})
		table.Default = to(u)
	}
	g = serve(t, table)
	var saying sync.WaitGroup
	for range n {
		c := g.dial(t, nil)
		clients = append(clients, c)
		saying.Go(func() {
			c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)) // the rest of a flood is never read
			c.Write(s.says)
		})
	}
	saying.Wait()
	return g, u, clients
}

// In every phase each stalled connection costs one goroutine and a bounded amount of
// memory.
func TestStalledConnectionsCostLittle(t *testing.T) {
	const n = 100
	p := newPKI(t)
	for _, s := range stalls(t, p) {
		t.Run(s.name, func(t *testing.T) {
			memory := func() int64 {
				var m runtime.MemStats
				held := splicetest.Heap()
				runtime.ReadMemStats(&m)
				return held + int64(m.StackInuse)
			}
			s.begin(t, p, time.Hour, 1) // allocations made once are not counted
			goroutines, before := runtime.NumGoroutine(), memory()
			g, _, _ := s.begin(t, p, time.Hour, n)
			eventually(t, "all connections are accepted", func() bool { return g.Stats().Open == n })
			// One goroutine for each connection, and a few of the test.
			eventually(t, "no more goroutines than connections", func() bool { return runtime.NumGoroutine() <= goroutines+n+10 })
			held := (memory() - before) / n
			t.Logf("%d bytes for each connection", held)
			if held > s.most {
				t.Errorf("%d KiB are held for each connection, want at most %d", held>>10, s.most>>10)
			}
		})
	}
}

func TestStalledConnectionsAreClosedInTime(t *testing.T) {
	t.Parallel()
	const n = 50
	p := newPKI(t)
	for _, s := range stalls(t, p) {
		t.Run(s.name, func(t *testing.T) {
			g, u, clients := s.begin(t, p, 300*time.Millisecond, n)
			for _, c := range clients {
				io.Copy(io.Discard, c) // until any kind of end
			}
			eventually(t, "all connections have ended", func() bool { s := g.Stats(); return s.Accepted == n && s.Open == 0 })
			stats := g.Stats()
			if s.upstream == nil {
				if stats.HandshakeFailures[s.reason] != n || stats.DialFailures != 0 {
					t.Errorf("%+v", stats)
				}
				return
			}
			e := u.Status()[0]
			if stats.DialFailures != n || e.Failures[s.reason] != n || e.Open != 0 {
				t.Errorf("%+v, %+v", stats, e)
			}
		})
	}
}

// A hello that arrives byte by byte gets no additional time.
func TestSlowHelloGetsNoMoreTime(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	g := serve(t, &l4.Table{TLS: p.listener(t, "gate.test"), HandshakeTimeout: 300 * time.Millisecond})
	whole := hello(t)
	var clients sync.WaitGroup
	for range 20 {
		c := g.dial(t, nil)
		clients.Go(func() {
			for b := range bytes.SplitSeq(whole, nil) {
				if _, err := c.Write(b); err != nil {
					break
				}
				time.Sleep(10 * time.Millisecond) // slower than the limit allows in total
			}
			io.Copy(io.Discard, c)
		})
	}
	clients.Wait()
	eventually(t, "all connections have ended", func() bool { return g.Stats().Open == 0 })
	if s := g.Stats(); s.HandshakeFailures[certs.ReasonHandshakeTimeout] != 20 || s.HandshakesFull != 0 {
		t.Errorf("%+v", s)
	}
}
