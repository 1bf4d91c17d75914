package l7

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// A fault affects one direction of a connection, after a given number of bytes.
type fault struct {
	toServer bool
	at       int
	how      string // "reset", "close" or "stall"
}

// A faultyRelay carries connections to an address, applies a fault to each, and counts
// the bytes it carries.
type faultyRelay struct {
	to string
	ln net.Listener

	mu       sync.Mutex
	fault    *fault // nil: no fault
	toServer int    // bytes of the latest connection
	toClient int
	conns    map[*net.TCPConn]bool
}

func newFaultyRelay(t testing.TB, to string) *faultyRelay {
	r := &faultyRelay{to: to, ln: listen(t), conns: make(map[*net.TCPConn]bool)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := r.ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { r.carry(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { r.ln.Close(); r.end(); all.Wait() })
	return r
}

func (r *faultyRelay) address() string { return r.ln.Addr().String() }

// end resets every connection.
func (r *faultyRelay) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.SetLinger(0)
		c.Close()
	}
	clear(r.conns)
}

// set applies the fault f to new connections, and ends the existing ones.
func (r *faultyRelay) set(f *fault) {
	r.end()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault, r.toServer, r.toClient = f, 0, 0
}

func (r *faultyRelay) carried() (toServer, toClient int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.toServer, r.toClient
}

func (r *faultyRelay) carry(client *net.TCPConn) {
	conn, err := net.Dial("tcp", r.to)
	if err != nil {
		client.Close()
		return
	}
	server := conn.(*net.TCPConn)
	r.mu.Lock()
	f := r.fault
	r.conns[client], r.conns[server] = true, true
	r.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { r.direction(server, client, f, true) })
	both.Go(func() { r.direction(client, server, f, false) })
	both.Wait()
	client.Close()
	server.Close()
	r.mu.Lock()
	delete(r.conns, client)
	delete(r.conns, server)
	r.mu.Unlock()
}

// direction carries one direction.
func (r *faultyRelay) direction(to, from *net.TCPConn, f *fault, toServer bool) {
	buf := make([]byte, 32<<10)
	for done := 0; ; {
		most := len(buf)
		if f != nil && f.toServer == toServer {
			most = min(most, f.at-done)
		}
		if most == 0 {
			switch f.how {
			case "reset":
				for _, c := range []*net.TCPConn{to, from} {
					_ = c.SetLinger(0)
					c.Close()
				}
			case "close":
				to.Close()
				from.Close()
			case "stall":
				_, _ = io.Copy(io.Discard, from) // reads without delivering
			}
			return
		}
		n, err := from.Read(buf[:most])
		r.mu.Lock()
		if done += n; toServer {
			r.toServer = done
		} else {
			r.toClient = done
		}
		r.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.SetLinger(0)
				from.Close()
				return
			}
		}
		if err == io.EOF {
			_ = to.CloseWrite()
			return
		}
		if err != nil {
			_ = to.SetLinger(0)
			to.Close()
			return
		}
	}
}

var (
	faultyAnswer = strings.Repeat("0123456789abcdef", 200)
	faultyUpload = strings.Repeat("fedcba9876543210", 150)
)

// A faultyKind is a kind of exchange to test with faults.
type faultyKind struct {
	name, method string
	onlyHTTP1    bool // the upstream speaks only HTTP/1
	unmarked     bool // only a reset shows that the response is incomplete
	serve        http.HandlerFunc
}

var faultyKinds = []faultyKind{
	{name: "sized", method: "GET", serve: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(faultyAnswer)))
		_, _ = io.WriteString(w, faultyAnswer)
	}},
	{name: "streamed, with a trailer", method: "POST", serve: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		for from := faultyAnswer; len(from) > 0; from = from[800:] {
			_, _ = io.WriteString(w, from[:800])
			_ = http.NewResponseController(w).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
	}},
	{name: "until the end of the connection", method: "PUT", onlyHTTP1: true, unmarked: true, serve: func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n\r\n%s", faultyAnswer)
			c.Close()
		}
	}},
}

// A connection breaks, stalls or ends at some byte, on either side, in every pair of
// versions. No message that was cut off looks complete to the client or the upstream,
// and no resource leaks. FAULTS=all tries every byte; the default is a sample.
func TestFaultsAtEveryByte(t *testing.T) {
	t.Parallel()
	for _, front := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		for _, back := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
			for _, kind := range faultyKinds {
				if kind.onlyHTTP1 && back == backs.HTTP2 {
					continue
				}
				t.Run(fmt.Sprintf("%v to %v, %s", front, back, kind.name), func(t *testing.T) {
					t.Parallel()
					testFaults(t, front, back, &kind)
				})
			}
		}
	}
}

func testFaults(t *testing.T, front, back backs.Protocol, kind *faultyKind) {
	w := newTestbed(t)
	ln := listen(w)
	srv := &http.Server{ErrorLog: w.logger(hclog.Trace).StandardLogger(nil), Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(back == backs.HTTP1)
	srv.Protocols.SetUnencryptedHTTP2(back == backs.HTTP2)
	srv.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		switch {
		case err != nil:
			panic(http.ErrAbortHandler)
		case kind.method != "GET" && string(body) != faultyUpload:
			t.Errorf("%d bytes of an upload look complete", len(body))
		}
		kind.serve(rw, r)
	})
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	w.Cleanup(func() { srv.Close(); <-done })

	const limit = 100 * time.Millisecond
	toUpstream := newFaultyRelay(w, ln.Addr().String())
	b := w.newBack(backs.Options{Protocol: back, Upstream: upstream.New(upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, IdleTimeout: limit, Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: toUpstream.address()}}})})
	table := &Table{Default: to(b), IdleTimeout: limit, HeaderReadTimeout: limit}
	table.Default.Forward.Timeout = 2 * limit
	s := New(Options{Listener: "front", Table: fixed(table), Logger: w.logger(hclog.Error)})
	toGateway := newFaultyRelay(w, w.serve(s))

	request := func() (whole bool) {
		tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
		tr.Protocols.SetHTTP1(front == backs.HTTP1)
		tr.Protocols.SetUnencryptedHTTP2(front == backs.HTTP2)
		defer tr.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(t.Context(), 10*limit)
		defer cancel()
		var body io.Reader
		if kind.method != "GET" {
			body = struct{ io.Reader }{strings.NewReader(faultyUpload)}
		}
		req, _ := http.NewRequestWithContext(ctx, kind.method, "http://"+toGateway.address(), body)
		res, err := tr.RoundTrip(req)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		got, err := io.ReadAll(res.Body)
		switch {
		case err != nil || res.StatusCode >= 400:
			return false
		case string(got) != faultyAnswer:
			// A stream whose gRPC status reports a failure does not count as complete.
			if status := res.Trailer.Get("Grpc-Status"); status == "" || status == "0" {
				t.Errorf("%d of %d bytes look complete", len(got), len(faultyAnswer))
			}
			return false
		case res.Header.Get("Content-Type") == "application/grpc" && res.Trailer.Get("Grpc-Status") == "":
			t.Error("a response without its trailer looks complete")
		}
		return true
	}
	eventually(t, "a request succeeds without a fault", request)
	relays := map[string]*faultyRelay{"client's": toGateway, "upstream's": toUpstream}
	sizes := make(map[string][2]int)
	for side, r := range relays {
		up, down := r.carried()
		sizes[side] = [2]int{up, down}
	}
	failed := 0
	for side, r := range relays {
		for i, toServer := range []bool{true, false} {
			for how, few := range map[string]int{"reset": 12, "close": 12, "stall": 3} {
				size := sizes[side][i]
				step := max(size/few, 1)
				if os.Getenv("FAULTS") == "all" && how != "stall" {
					step = 1
				}
				for at := 0; at < size; at += step {
					if kind.unmarked && how == "close" && side == "upstream's" && !toServer {
						continue // an unmarked response looks complete
					}
					r.set(&fault{toServer: toServer, at: at, how: how})
					if !request() {
						failed++
					}
				}
				r.set(nil)
			}
		}
		toGateway.end()
		toUpstream.end()
	}
	if failed == 0 {
		t.Error("no fault was noticed")
	}
	eventually(t, "a request succeeds after the faults", request)
	eventually(t, "no request or connection is left", func() bool { return s.Stats().InFlight == 0 && s.shared.Kept() == 0 })
}

// A brokenConn is a connection whose calls fail from a given call on. It is not
// a kernel socket.
type brokenConn struct {
	net.Conn
	mu   sync.Mutex
	left int    // calls before the failure
	what string // "read" or "write"
	how  error
}

func (c *brokenConn) breaks(operation string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.what != operation {
		return false
	}
	c.left--
	return c.left < 0
}

func (c *brokenConn) Read(p []byte) (int, error) {
	if c.breaks("read") {
		return 0, c.how
	}
	return c.Conn.Read(p)
}

func (c *brokenConn) Write(p []byte) (int, error) {
	if c.breaks("write") {
		n, _ := c.Conn.Write(p[:len(p)/2])
		return n, c.how
	}
	return c.Conn.Write(p)
}

// A brokenListener's connections break.
type brokenListener struct {
	net.Listener
	mu   sync.Mutex
	next brokenConn
}

func (l *brokenListener) set(operation string, left int, failure error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next.what, l.next.left, l.next.how = operation, left, failure
}

func (l *brokenListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return &brokenConn{Conn: c, what: l.next.what, left: l.next.left, how: l.next.how}, nil
}

// A read or write of a client's connection fails, with each kind of error. No message
// that was cut off looks complete, and no resource leaks.
func TestFaultsAtEveryCall(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		for _, front := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
			t.Run(fmt.Sprintf("TLS %v, %v", secure, front), func(t *testing.T) {
				t.Parallel()
				w := newTestbed(t)
				table := &Table{Default: to(w.back(backs.HTTP2, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					body, err := io.ReadAll(r.Body)
					if err != nil {
						panic(http.ErrAbortHandler)
					}
					if string(body) != faultyUpload {
						t.Errorf("%d bytes of an upload look complete", len(body))
					}
					for range 5 {
						_, _ = io.WriteString(rw, faultyAnswer)
						_ = http.NewResponseController(rw).Flush()
					}
				}), "h2")))}
				scheme := "http"
				if secure {
					scheme, table.TLS = "https", w.listenerTLS("h2", "http/1.1")
				}
				s := New(Options{Listener: "front", Table: fixed(table), Logger: w.logger(hclog.Error)})
				ln := &brokenListener{Listener: listen(w)}
				served := make(chan error, 1)
				go func() { served <- s.Serve(ln) }()
				w.Cleanup(func() {
					ctx, cancel := context.WithCancel(context.Background())
					cancel()
					_ = s.Shutdown(ctx)
					<-served
				})
				for _, what := range []string{"read", "write"} {
					for _, how := range []error{syscall.ECONNRESET, io.ErrUnexpectedEOF, os.ErrDeadlineExceeded, net.ErrClosed} {
						if what == "read" && how == os.ErrDeadlineExceeded {
							continue // the error means that the gateway itself has set a deadline
						}
						for left := range 25 {
							ln.set(what, left, how)
							tr := w.browser().Transport.(*http.Transport)
							tr.Protocols = new(http.Protocols)
							tr.Protocols.SetHTTP1(front == backs.HTTP1)
							tr.Protocols.SetHTTP2(front == backs.HTTP2)
							tr.Protocols.SetUnencryptedHTTP2(front == backs.HTTP2)
							ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
							req, _ := http.NewRequestWithContext(ctx, "PUT", scheme+"://"+ln.Addr().String(), struct{ io.Reader }{strings.NewReader(faultyUpload)})
							res, err := tr.RoundTrip(req)
							if err == nil {
								got, err := io.ReadAll(res.Body)
								if err == nil && res.StatusCode == 200 && len(got) != 5*len(faultyAnswer) {
									t.Errorf("%s %d fails with %v: %d bytes look complete", what, left, how, len(got))
								}
								res.Body.Close()
							}
							cancel()
							tr.CloseIdleConnections()
						}
					}
				}
				eventually(t, "no request or connection is left", func() bool { return s.Stats().InFlight == 0 && s.shared.Kept() == 0 })
			})
		}
	}
}

// An upgraded connection that breaks at any byte ends on both sides.
func TestFaultsOfUpgradedConnections(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", secure), func(t *testing.T) {
			t.Parallel()
			testUpgradeFaults(t, secure)
		})
	}
}

func testUpgradeFaults(t *testing.T, secure bool) {
	w := newTestbed(t)
	var config *tls.Config
	o := upstream.EndpointOptions{Network: "tcp"}
	if secure {
		config = w.serverTLS("http/1.1")
		o.Stream, o.HTTP = w.client(), w.client("http/1.1")
	}
	address := w.raw(config, func(c net.Conn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(c, r)
	})
	toUpstream := newFaultyRelay(w, address)
	o.Address = toUpstream.address()
	s, front := w.plain(w.newBack(backs.Options{Protocol: backs.HTTP1, TLS: secure, Upstream: upstream.New(upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Endpoints: []upstream.EndpointOptions{o}})}))
	toGateway := newFaultyRelay(w, front)
	message := []byte(faultyUpload[:500])
	talk := func() bool {
		c := w.dial(toGateway.address())
		defer c.Close()
		c.send("GET / HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: echo")
		res, err := http.ReadResponse(c.r, nil)
		if err != nil || res.StatusCode != 101 {
			return false
		}
		go func() { _, _ = c.Write(message) }()
		got := make([]byte, len(message))
		n, err := io.ReadFull(c.r, got)
		if !bytes.HasPrefix(message, got[:n]) {
			t.Errorf("%q came back", got[:n])
		}
		return err == nil
	}
	if !talk() {
		t.Fatal("the upgrade fails without a fault")
	}
	for _, r := range []*faultyRelay{toGateway, toUpstream} {
		up, down := r.carried()
		for i, size := range []int{up, down} {
			for _, how := range []string{"reset", "close"} {
				for at := 0; at < size; at += max(1, size/20) {
					r.set(&fault{toServer: i == 0, at: at, how: how})
					talk()
				}
				r.set(nil)
			}
		}
	}
	if !talk() {
		t.Error("the upgrade fails after the faults")
	}
	eventually(t, "no request or connection is left", func() bool { return s.Stats().InFlight == 0 })
}
