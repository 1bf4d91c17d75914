package l7

import (
	"context"
	"crypto/tls"

	"fmt"
	"hash/crc64"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// Random clients send random requests to random upstreams, in both versions of HTTP,
// while connections are reset on either side, streams are refused, and requests are
// retried. In every case:
//
//   - a response that looks complete to its client equals, byte for byte, the one that
//     an upstream sent for that request;
//   - an upstream that answers a complete request has received exactly its client's body;
//   - a request whose method is not idempotent is processed at most once;
//   - no goroutine, connection or buffer remains at the end.
//
// CHAOS sets the duration; `make chaos` sets CHAOS.
func TestChaos(t *testing.T) {
	length := 3 * time.Second
	if text := os.Getenv("CHAOS"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatalf("CHAOS: %v", err)
		}
	}
	w := newTestbed(t)
	c := &chaos{t: t, requests: make(map[string]*chaosRequest), answers: make(map[string]*chaosAnswer)}
	backs := c.backs(w)
	var addresses []string
	var servers []*Server
	for _, secure := range []bool{false, true} {
		for i, b := range backs {
			table := &Table{Default: to(b)}
			if i%2 == 1 {
				// Status codes and every failure are retried, but only for idempotent
				// methods.
				table.Default.Forward.Retry = &exchange.Retry{Attempts: 3, ConnectFailure: true, Reset: true, RefusedStream: true, Codes: []int{503}, Backoff: time.Millisecond}
			}
			scheme := "http"
			if secure {
				table.TLS, scheme = w.listenerTLS("h2", "http/1.1"), "https"
			}
			s := New(Options{Listener: "front", Table: fixed(table), Logger: w.logger(hclog.Error)})
			addresses = append(addresses, scheme+"://"+w.serve(s))
			servers = append(servers, s)
		}
	}
	// On a busy machine a round may pass before both kinds of requests have occurred.
	for round := 0; round == 0 || round < 10 && !c.mixed(); round++ {
		ctx, stop := context.WithTimeout(t.Context(), length)
		var all sync.WaitGroup
		for n := range 16 {
			all.Go(func() { c.client(ctx, w, 16*round+n, addresses) })
		}
		all.Go(func() { c.kill(ctx) })
		all.Wait()
		stop()
	}
	c.checkProcessed()
	for _, s := range servers {
		eventually(t, "no request is left", func() bool { return s.Stats().InFlight == 0 && s.shared.Kept() == 0 })
	}
	t.Logf("%d requests: %d complete responses, %d answers of the gateway, %d failures; %d connections were reset", c.sent.Load(), c.whole.Load(), c.refused.Load(), c.failed.Load(), c.killed.Load())
	if !c.mixed() {
		t.Error("no request succeeded, or none failed")
	}
}

type chaos struct {
	t     *testing.T
	conns chaosConns

	sent, whole, refused, failed, killed atomic.Int64

	mu       sync.Mutex
	requests map[string]*chaosRequest // by request ID
	answers  map[string]*chaosAnswer  // by answer ID
}

// mixed reports that a request succeeded and another one failed.
func (c *chaos) mixed() bool { return c.whole.Load() > 0 && c.refused.Load()+c.failed.Load() > 0 }

// A chaosRequest is a request that a client sent.
type chaosRequest struct {
	method    string
	body      uint64 // checksum of the body
	processed int    // how often an upstream took responsibility for the request
}

// A chaosAnswer is the answer that an upstream intends to send.
type chaosAnswer struct {
	request string
	body    uint64 // checksum of the body
	length  int
	broken  bool // the upstream breaks the response off
	trailer bool
}

var crc = crc64.MakeTable(crc64.ECMA)

func crcOf(p []byte) uint64 { return crc64.Checksum(p, crc) }

// random returns bytes of a random length, short ones more often.
func random(most int) []byte {
	p := make([]byte, rand.IntN(1+rand.IntN(1+rand.IntN(most))))
	for i := range p {
		p[i] = byte(rand.Uint32())
	}
	return p
}

// process records that an upstream takes responsibility for a request.
func (c *chaos) process(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.requests[id]
	if r == nil {
		c.t.Errorf("an upstream received a request %q that no client sent", id)
		return
	}
	r.processed++
}

// received checks a body that an upstream has read to its end.
func (c *chaos) received(id string, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.requests[id]; r != nil && r.body != crcOf(body) {
		c.t.Errorf("the body of %s %s arrived changed: %d bytes", r.method, id, len(body))
	}
}

// answer generates an answer to a request.
func (c *chaos) answer(id string) (name string, body []byte, a *chaosAnswer) {
	body = random(300_000)
	a = &chaosAnswer{request: id, body: crcOf(body), length: len(body), broken: rand.IntN(5) == 0, trailer: rand.IntN(3) == 0}
	c.mu.Lock()
	defer c.mu.Unlock()
	name = strconv.Itoa(len(c.answers))
	c.answers[name] = a
	return name, body, a
}

// checkProcessed checks that no request was processed too often.
func (c *chaos) checkProcessed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, r := range c.requests {
		if r.processed > 1 && (r.method == "POST" || r.method == "PATCH") {
			c.t.Errorf("%s %s was processed %d times", r.method, id, r.processed)
		}
	}
}

// client sends requests until ctx ends.
func (c *chaos) client(ctx context.Context, w *testbed, n int, addresses []string) {
	t := &http.Transport{
		TLSClientConfig:    &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"},
		ForceAttemptHTTP2:  n%2 == 0,
		DisableCompression: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return c.conns.add(conn), nil
		},
	}
	if n%2 == 1 {
		t.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	defer t.CloseIdleConnections()
	browser := &http.Client{Transport: t}
	methods := []string{"GET", "POST", "PUT", "PATCH", "DELETE"}
	for i := 0; ctx.Err() == nil; i++ {
		id := fmt.Sprintf("%d-%d", n, i)
		r := &chaosRequest{method: methods[rand.IntN(len(methods))]}
		var body []byte
		if r.method != "GET" {
			body = random(300_000)
		}
		r.body = crcOf(body)
		c.mu.Lock()
		c.requests[id] = r
		c.mu.Unlock()
		c.request(ctx, browser, addresses[rand.IntN(len(addresses))], id, r, body)
	}
}

// request sends one request, and checks its outcome.
func (c *chaos) request(ctx context.Context, browser *http.Client, address, id string, r *chaosRequest, body []byte) {
	if rand.IntN(20) == 0 { // the client will leave
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(rand.IntN(int(5*time.Millisecond))))
		defer cancel()
	}
	var from io.Reader
	if len(body) > 0 {
		from = &pieceReader{rest: body}
	}
	// Without GetBody, and with a reader of unknown type, Go's client never
	// resends a request with a body by itself.
	req, _ := http.NewRequestWithContext(ctx, r.method, address+"/", from)
	if len(body) > 0 && rand.IntN(2) == 0 {
		req.ContentLength = int64(len(body))
	}
	req.Header.Set("Id", id)
	c.sent.Add(1)
	res, err := browser.Do(req)
	if err != nil {
		c.failed.Add(1)
		return
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		c.failed.Add(1)
		return
	}
	name := res.Header.Get("Answer")
	if name == "" {
		c.refused.Add(1)
		if res.StatusCode < 400 {
			c.t.Errorf("%s %s was answered %d, but no upstream sent that", r.method, id, res.StatusCode)
		}
		return
	}
	c.whole.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch a := c.answers[name]; {
	case a == nil || a.request != id:
		c.t.Errorf("%s %s got the answer of another request", r.method, id)
	case a.broken:
		c.t.Errorf("%s %s: the upstream broke the response off, but %d of %d bytes look complete", r.method, id, len(got), a.length)
	case a.length != len(got) || a.body != crcOf(got):
		c.t.Errorf("%s %s: %d bytes look complete, %d were sent", r.method, id, len(got), a.length)
	case a.trailer && res.Trailer.Get("Sum") != strconv.FormatUint(a.body, 16):
		c.t.Errorf("%s %s: the trailer is %v", r.method, id, res.Trailer)
	}
}

// A pieceReader returns its data in pieces of random size.
type pieceReader struct{ rest []byte }

func (p *pieceReader) Read(into []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(into[:min(len(into), 1+rand.IntN(20_000))], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// kill resets connections until ctx ends.
func (c *chaos) kill(ctx context.Context) {
	ticker := time.NewTicker(25 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if c.conns.killOne() {
				c.killed.Add(1)
			}
		}
	}
}

// chaosConns are the connections that may be reset.
type chaosConns struct {
	mu   sync.Mutex
	open map[*chaosConn]bool
}

type chaosConn struct {
	net.Conn
	of *chaosConns
}

func (cs *chaosConns) add(conn net.Conn) net.Conn {
	c := &chaosConn{conn, cs}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.open == nil {
		cs.open = make(map[*chaosConn]bool)
	}
	cs.open[c] = true
	return c
}

func (cs *chaosConns) killOne() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	skip := 0
	if len(cs.open) > 0 {
		skip = rand.IntN(len(cs.open))
	}
	for c := range cs.open {
		if skip--; skip < 0 {
			delete(cs.open, c)
			c.reset()
			return true
		}
	}
	return false
}

func (c *chaosConn) reset() {
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	c.Conn.Close()
}

func (c *chaosConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

func (c *chaosConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// A chaosListener's connections may be reset.
type chaosListener struct {
	net.Listener
	conns *chaosConns
}

func (l *chaosListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.conns.add(conn), nil
}

// backs returns Backs to upstreams of each kind.
func (c *chaos) backs(w *testbed) (all []*backs.Pools) {
	listener := func() *chaosListener { return &chaosListener{listen(w), &c.conns} }
	secure := func(p backs.Protocol, addresses ...string) {
		for range 2 { // one back without retries, one with
			all = append(all, w.back(p, addresses...))
		}
	}
	plain := func() string {
		ln := listener()
		srv := &http.Server{Handler: c, ErrorLog: w.logger(hclog.Trace).StandardLogger(nil)}
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.Serve(ln) }()
		w.Cleanup(func() { srv.Close(); <-done })
		return ln.Addr().String()
	}
	for range 2 {
		all = append(all, w.newBack(backs.Options{Upstream: upstream.New(upstream.Options{Name: "plain", Endpoints: []upstream.EndpointOptions{
			{Network: "tcp", Address: plain()}, {Network: "tcp", Address: plain()}}})}))
	}
	secure(backs.HTTP1, w.serverOn(listener(), c, "http/1.1"))
	secure(backs.HTTP2, w.serverOn(listener(), c, "h2"), w.serverOn(listener(), c, "h2"))
	secure(backs.Auto, w.serverOn(listener(), c, "h2", "http/1.1"))
	ln := listener()
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				tc := tls.Server(conn, w.serverTLS("h2"))
				_ = tc.SetDeadline(time.Now().Add(time.Hour))
				c.refuse(tc)
			})
		}
	})
	w.Cleanup(func() { ln.Close(); c.conns.closeAll(); conns.Wait() })
	secure(backs.HTTP2, ln.Addr().String())
	return all
}

func (cs *chaosConns) closeAll() {
	for cs.killOne() {
	}
}
