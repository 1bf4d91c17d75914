package l7

import (
	"bufio"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	h2 "github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

var aborts = flag.Int("aborts", 600, "how many exchanges TestAbortedExchangesLeaveNothing aborts")

// Clients and upstreams abort exchanges at every stage, for every pair of HTTP
// versions. Afterward no goroutine, descriptor, request in progress, lent buffer
// or other memory of the exchanges remains. (`make aborts` aborts 100,000.)
func TestAbortedExchangesLeaveNothing(t *testing.T) {
	// Everything that the first exchange leaves for later exchanges, such as
	// buffers, exists when it ends.
	t.Run("warm-up", func(t *testing.T) { abortExchanges(t, *aborts/4) })
	goroutines, descriptors, heap := usage(t)
	begun := time.Now()
	t.Run("measured", func(t *testing.T) { abortExchanges(t, *aborts) })
	took := time.Since(begun)
	eventually(t, "no goroutine and no descriptor is left", func() bool {
		g, d, _ := usage(t)
		return g <= goroutines && d <= descriptors
	})
	g, d, h := usage(t)
	if h > heap+8<<20 {
		t.Errorf("the heap grew from %d to %d KiB", heap>>10, h>>10)
	}
	t.Logf("%d exchanges in %v: goroutines %d, then %d; descriptors %d, then %d; heap %d KiB, then %d", *aborts, took.Round(time.Second),
		goroutines, g, descriptors, d, heap>>10, h>>10)
}

// abortExchanges aborts n exchanges of two gateways, and ends them.
func abortExchanges(t *testing.T, n int) {
	w := newTestbed(t)
	var lent atomic.Int64 // number of lent buffers
	var most int64
	backs := map[string]*backs.Pools{
		"one":   w.back(backs.HTTP1, w.raw(w.serverTLS(), faultyServer)),
		"two":   w.back(backs.HTTP2, w.server(http.HandlerFunc(faultyHandler), "h2")),
		"plain": w.newBack(backs.Options{Upstream: plaintext(w.raw(nil, faultyServer))}),
		"ws":    w.back(backs.Auto, w.raw(w.serverTLS("h2"), connects(true, faultyStream))),
	}
	table := &Table{MaxBody: 500_000}
	var rules []route.Rule[*Action]
	for host, back := range backs {
		back.Buffers().Count(&lent)
		again := retried(back, exchange.Retry{Attempts: 3, ConnectFailure: true, Reset: true, RefusedStream: true, Codes: []int{403},
			Methods: []string{"POST"}, MaxBody: 50000, PerTry: 10 * time.Millisecond, Backoff: time.Millisecond})
		rules = append(rules, route.Rule[*Action]{Name: host, Hosts: []string{host}, Value: to(back)},
			route.Rule[*Action]{Name: host + "-again", Hosts: []string{host + "-again"}, Value: again})
	}
	table.Routes = w.routes(rules...)
	secure := *table
	secure.TLS = w.listenerTLS("h2", "http/1.1")
	clients := &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"}
	var servers []*Server
	var abort []func()
	for _, table := range []*Table{table, &secure} {
		s := New(Options{Table: fixed(table)})
		s.buffers.Count(&lent)
		address := w.serve(s)
		servers = append(servers, s)
		abort = append(abort, func() { abortOne(address, clients, table.TLS != nil) })
	}
	var left atomic.Int64
	left.Store(int64(n))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for k := left.Add(-1); k >= 0; k = left.Add(-1) {
				abort[k%2]()
				if l := lent.Load(); i == 0 {
					most = max(most, l)
				}
			}
		})
	}
	all.Wait()
	eventually(t, "no connection and no request is left", func() bool {
		return !slices.ContainsFunc(servers, func(s *Server) bool { st := s.Stats(); return st.Open != 0 || st.InFlight != 0 })
	})
	var requests, gone uint64
	for _, s := range servers {
		for code, n := range s.Stats().Requests {
			if requests += n; code == policy.StatusClientGone {
				gone += n
			}
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for host, b := range backs {
		if begun, retrying := b.Upstream().Retries().InProgress(); begun != 0 || retrying != 0 {
			t.Errorf("%s: the budget of retries has %d requests and %d retries", host, begun, retrying)
		}
		b.Retire()
	}
	eventually(t, "every buffer is returned", func() bool { return lent.Load() == 0 })
	t.Logf("%d requests, of which the client left %d; %d buffers were lent at once, and none is now", requests, gone, most)
}

func usage(t *testing.T) (goroutines, descriptors int, heap uint64) {
	t.Helper()
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil { // only Linux has /proc
		descriptors = len(fds)
	}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), descriptors, m.HeapAlloc
}

// faults are the paths of requests; each names what an upstream does to the
// request.
var faults = []string{"ok", "never", "big", "endless", "nothing", "half-a-head", "half-a-body", "no-chunk", "reset", "early", "early-and-gone", "switch", "more", "hints"}

// faultyServer is an upstream of HTTP/1.1.
func faultyServer(c net.Conn) {
	r := bufio.NewReader(c)
	gone := func() { _, _ = io.Copy(io.Discard, r) }
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		fault := strings.TrimPrefix(req.URL.Path, "/")
		if !strings.HasPrefix(fault, "early") && fault != "reset" && fault != "nothing" {
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
		}
		say := func(s string) bool { _, err := io.WriteString(c, s); return err == nil }
		switch fault {
		case "ok":
			if !say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") {
				return
			}
			continue
		case "hints":
			if !say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") {
				return
			}
			continue
		case "big":
			if !say("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + strings.Repeat("x", 200000)) {
				return
			}
			continue
		case "never":
			gone()
		case "endless":
			for say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"); say("1000\r\n" + strings.Repeat("x", 0x1000) + "\r\n"); {
			}
		case "half-a-head":
			say("HTTP/1.1 200 OK\r\nContent-Len")
		case "half-a-body":
			say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
		case "no-chunk":
			say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n")
			gone()
		case "reset":
			if tc, ok := c.(*tls.Conn); ok {
				c = tc.NetConn()
			}
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		case "early":
			say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
			gone()
		case "early-and-gone":
			say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		case "switch":
			say("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello")
			_, _ = io.Copy(c, r)
		case "more":
			say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokMORE")
			gone()
		}
		return
	}
}

// faultyHandler is an HTTP/2 upstream.
func faultyHandler(w http.ResponseWriter, r *http.Request) {
	fault := strings.TrimPrefix(r.URL.Path, "/")
	flush := func() { _ = http.NewResponseController(w).Flush() }
	switch fault {
	case "ok", "more", "switch", "hints":
		if fault == "hints" {
			w.WriteHeader(103)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "ok")
	case "never":
		<-r.Context().Done()
	case "big":
		_, _ = io.WriteString(w, strings.Repeat("x", 200000))
	case "endless":
		for {
			if _, err := io.WriteString(w, strings.Repeat("x", 0x1000)); err != nil {
				return
			}
		}
	case "half-a-body", "no-chunk", "half-a-head":
		_, _ = io.WriteString(w, "hello")
		flush()
		panic(http.ErrAbortHandler)
	case "early", "early-and-gone":
		w.WriteHeader(403)
		flush()
	default:
		panic(http.ErrAbortHandler)
	}
}

// faultyStream is an HTTP/2 upstream that accepts WebSockets.
func faultyStream(s *h2.ServerStream) {
	fault := strings.TrimPrefix(s.Request().Target, "/")
	begin := func() bool {
		return s.Respond(&message.Response{Status: 200, Length: -1, Fields: message.Fields{{Name: "content-type", Value: "application/grpc"}}}, false) == nil && s.Flush() == nil
	}
	switch fault {
	case "never":
		_ = rest(s)
	case "nothing", "reset", "half-a-head":
	case "early", "early-and-gone":
		_ = s.Respond(&message.Response{Status: 403}, true)
	case "big", "endless":
		for ok := begin(); ok; {
			ok = s.Write(make([]byte, 0x1000)) == nil
		}
	case "half-a-body", "no-chunk":
		begin()
		_ = s.Write([]byte("hello"))
		_ = s.Flush()
	default: // echoes the body
		if !begin() {
			return
		}
		for {
			p, err := s.Read()
			if err == io.EOF {
				_ = s.End(message.Fields{{Name: "grpc-status", Value: "0"}})
			}
			if err != nil || s.Write(p) != nil || s.Flush() != nil {
				return
			}
		}
	}
}

// abortOne begins an exchange and breaks it off, unless the upstream breaks it
// off first.
func abortOne(address string, config *tls.Config, secure bool) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return // the test itself is out of descriptors or ports for now
	}
	defer func() { c.Close() }()
	// The client leaves when it has read enough, or at a random moment before
	// that.
	_ = c.SetDeadline(time.Now().Add(rand.N(50 * time.Millisecond)))
	pick := func(of ...string) string { return of[rand.IntN(len(of))] }
	host, fault := pick("one", "two", "plain", "ws")+pick("", "-again"), pick(faults...)
	if rand.IntN(2) == 0 {
		_ = c.(*net.TCPConn).SetLinger(0) // makes Close reset the connection
	}
	streams := rand.IntN(3) == 0
	if secure {
		config := config.Clone()
		if streams {
			config.NextProtos = []string{"h2"}
		}
		tc := tls.Client(c, config)
		if c = tc; rand.IntN(4) > 0 { // otherwise the client may also leave during the handshake
			_ = c.SetDeadline(time.Now().Add(testTimeout))
			_ = tc.Handshake()
			_ = c.SetDeadline(time.Now().Add(rand.N(50 * time.Millisecond)))
		}
	}
	if streams {
		abortStream(c, host, fault)
		return
	}
	head := " /" + fault + " HTTP/1.1\r\nHost: " + host + "\r\n"
	all := pick(
		"GET"+head[:rand.IntN(len(head))],
		"GET"+head+"\r\n",
		"GET"+head+"\r\n",
		"GET"+head+"\r\nGET"+head+"\r\nGET"+head,
		"GET"+head+"Connection: close\r\n\r\n",
		"GET"+head+"Connection: upgrade\r\nUpgrade: x\r\n\r\nhello",
		"GET"+head+"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: "+sampleKey+"\r\n\r\nhello",
		"GET"+head+"X: "+strings.Repeat("x", 50000)+"\r\n\r\n",
		"HEAD"+head+"\r\n",
		"POST"+head+"Content-Length: 5\r\n\r\nhello",
		"POST"+head+"Content-Length: 10\r\n\r\nhello",
		"POST"+head+"Content-Length: 1000000\r\n\r\n"+strings.Repeat("x", 100000),
		"POST"+head+"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
		"POST"+head+"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"POST"+head+"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
		"POST"+head+"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n",
		"POST"+head+"Transfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
	)
	if secure && strings.HasPrefix(all, "GET") && !strings.HasSuffix(all, "\r\n\r\n") {
		// A gateway that has stopped reading cannot distinguish a close from a
		// half-close, so this client resets.
		_ = c.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0)
	}
	send(c, all, 0)
	switch rand.IntN(4) {
	case 0: // leaves at once
	case 1: // leaves in the middle of the response
		_, _ = io.ReadFull(c, make([]byte, rand.IntN(50000)+1))
	case 2: // half-closes
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
		_, _ = io.CopyN(io.Discard, c, 300000)
	case 3:
		_, _ = io.ReadFull(c, make([]byte, 1))
	}
}

// abortStream does the same with HTTP/2 streams.
func abortStream(c net.Conn, host, fault string) {
	p := newFramed(c)
	for i := range rand.IntN(3) + 1 {
		id, end := uint32(2*i+1), rand.IntN(2) == 0
		fields := []string{":method: POST", ":scheme: http", ":authority: " + host, ":path: /" + fault}
		switch rand.IntN(4) {
		case 0:
			fields[0] = ":method: CONNECT"
			fields = append(fields, ":protocol: websocket")
		case 1:
			fields = append(fields, "content-type: application/grpc", "te: trailers", fmt.Sprintf("grpc-timeout: %dm", rand.IntN(40)))
		}
		p.headers(id, fields, end)
		if !end {
			_ = p.framer.WriteData(id, rand.IntN(3) == 0, make([]byte, rand.IntN(10000)))
		}
		switch rand.IntN(4) {
		case 0:
			_ = p.framer.WriteRSTStream(id, http2.ErrCodeCancel)
		case 1:
			_ = p.framer.WriteData(0, false, nil) // a connection error
		}
	}
	for range rand.IntN(6) {
		if _, err := p.framer.ReadFrame(); err != nil {
			return
		}
	}
}
