package l7

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/faulttest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// An upstreamKind is a kind of exchange over a connection to an upstream that fails.
type upstreamKind struct {
	name                 string
	onlyFront, onlyBack  backs.Protocol // 0: both versions
	ask                  func(f *faultyTestbed) (whole bool, err error)
	serve                http.HandlerFunc
	upgrades, idempotent bool
}

// inPieces writes faultyAnswer. The gateway reads each piece separately, because time
// passes in the test's bubble only while the gateway waits for the next piece.
func inPieces(write func(piece string)) {
	for from := faultyAnswer; len(from) > 0; from = from[800:] {
		write(from[:800])
		time.Sleep(time.Millisecond)
	}
}

// answerWhole sends faultyAnswer with its length.
func answerWhole(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", fmt.Sprint(len(faultyAnswer)))
	inPieces(func(piece string) {
		_, _ = io.WriteString(w, piece)
		_ = http.NewResponseController(w).Flush()
	})
}

// answerInChunks sends faultyAnswer without its length, and a trailer.
func answerInChunks(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Trailer", "End")
	inPieces(func(piece string) {
		_, _ = io.WriteString(w, piece)
		_ = http.NewResponseController(w).Flush()
	})
	w.Header().Set("End", "yes")
}

// readUpload returns the body of a request, or ends the exchange if it is incomplete.
func readUpload(r *http.Request) string {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return string(body)
}

// echoBody answers with what it reads, as it reads it.
func echoBody(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	_ = c.EnableFullDuplex() // HTTP/2 is always full duplex
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	w.Header().Set("Trailer", "Grpc-Status")
	_ = c.Flush()
	buf := make([]byte, 1000)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			_, _ = w.Write(buf[:n])
			_ = c.Flush()
		}
		if err == io.EOF {
			w.Header().Set("Grpc-Status", "0")
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// unsized hides the length of a body.
func unsized(body string) io.Reader { return struct{ io.Reader }{strings.NewReader(body)} }

var upstreamKinds = []upstreamKind{
	{name: "GET", idempotent: true, serve: answerWhole, ask: func(f *faultyTestbed) (bool, error) {
		return f.exchange("GET", nil, faultyAnswer, "")
	}},
	{name: "GET in chunks, with a trailer", idempotent: true, serve: answerInChunks, ask: func(f *faultyTestbed) (bool, error) {
		return f.exchange("GET", nil, faultyAnswer, "End")
	}},
	{name: "GET until the end of the connection", idempotent: true, onlyBack: backs.HTTP1, ask: func(f *faultyTestbed) (bool, error) {
		return f.exchange("GET", nil, faultyAnswer, "")
	}, serve: func(w http.ResponseWriter, _ *http.Request) {
		if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
			inPieces(func(piece string) { _, _ = io.WriteString(c, piece) })
			c.Close()
		}
	}},
	{name: "POST", ask: func(f *faultyTestbed) (bool, error) {
		return f.exchange("POST", strings.NewReader(faultyUpload), faultyAnswer, "")
	}, serve: func(w http.ResponseWriter, r *http.Request) {
		if body := readUpload(r); body != faultyUpload {
			panic(fmt.Sprintf("%d bytes of an upload look complete", len(body)))
		}
		answerWhole(w, r)
	}},
	{name: "POST in chunks, with a trailer", ask: func(f *faultyTestbed) (bool, error) {
		return f.exchange("POST", unsized(faultyUpload), faultyAnswer, "End")
	}, serve: func(w http.ResponseWriter, r *http.Request) {
		if body := readUpload(r); body != faultyUpload || r.Trailer.Get("End") != "yes" {
			panic(fmt.Sprintf("%d bytes of an upload with the trailer %v look complete", len(body), r.Trailer))
		}
		answerInChunks(w, r)
	}},
	{name: "POST that is answered early", serve: answerWhole, ask: func(f *faultyTestbed) (bool, error) {
		return f.exchange("POST", strings.NewReader(strings.Repeat(faultyUpload, 200)), faultyAnswer, "")
	}},
	{name: "POST whose upload continues during the response", serve: echoBody, ask: func(f *faultyTestbed) (bool, error) {
		upload := strings.Repeat(faultyUpload, 20)
		return f.exchange("POST", unsized(upload), upload, "")
	}},
	{name: "gRPC stream", onlyFront: backs.HTTP2, onlyBack: backs.HTTP2, serve: echoBody, ask: (*faultyTestbed).stream},
	{name: "WebSocket", onlyFront: backs.HTTP2, onlyBack: backs.HTTP1, upgrades: true, ask: (*faultyTestbed).webSocket, serve: func(w http.ResponseWriter, r *http.Request) {
		c, in, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", acceptKey(r))
		_, _ = io.Copy(c, in.Reader)
	}},
}

// A faultyTestbed is a gateway whose connections to its upstream are in memory. One of
// them fails.
type faultyTestbed struct {
	*testbed
	t         *testing.T
	kind      *upstreamKind
	server    *Server
	front     *faulttest.Listener
	transport *http.Transport

	faults *faulttest.Injector // faults in the connections to the upstream

	mu    sync.Mutex
	asked map[string]int // how often the upstream began to serve each request
	next  int            // the number of the next request
}

// A faultySetting selects the protocols of the client and of the connection to
// the upstream.
type faultySetting struct {
	kind            *upstreamKind
	front, back     backs.Protocol
	secure, retries bool
}

func (x *faultySetting) String() string {
	return fmt.Sprintf("%s, %v to %v, TLS %v, retries %v", x.kind.name, x.front, x.back, x.secure, x.retries)
}

// Each wait in the gateway has one of these limits.
const (
	faultyShake = time.Second
	faultyIdle  = 2 * time.Second
	faultyTotal = 20 * time.Second

	faultyTunnel = 63 * time.Minute // the idle limit of a tunnel, and how late it may be noticed
)

func newFaultyTestbed(t *testing.T, x *faultySetting, f faulttest.Fault) *faultyTestbed {
	fw := &faultyTestbed{testbed: newTestbed(t), t: t, kind: x.kind, front: faulttest.Listen(), faults: faulttest.NewInjector(f), asked: make(map[string]int)}
	back := faulttest.Listen()
	srv := &http.Server{ErrorLog: fw.logger(hclog.Trace).StandardLogger(nil), Protocols: new(http.Protocols), Handler: http.HandlerFunc(fw.serveUpstream)}
	var ln net.Listener = back
	o := upstream.EndpointOptions{Network: "tcp", Address: "upstream.test:80"}
	if x.secure {
		proto := map[backs.Protocol]string{backs.HTTP1: "http/1.1", backs.HTTP2: "h2"}[x.back]
		ln = tls.NewListener(back, fw.serverTLS(proto))
		o.Stream, o.HTTP = fw.client(), fw.client(proto)
	}
	srv.Protocols.SetHTTP1(x.back == backs.HTTP1)
	srv.Protocols.SetHTTP2(x.back == backs.HTTP2 && x.secure)
	srv.Protocols.SetUnencryptedHTTP2(x.back == backs.HTTP2 && !x.secure)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = srv.Serve(ln) }()

	pools := backs.New(backs.Options{Protocol: x.back, TLS: x.secure, Upstream: upstream.New(upstream.Options{
		Name: "up", Endpoints: []upstream.EndpointOptions{o}, HandshakeTimeout: faultyShake, IdleTimeout: faultyIdle,
		Connect: func(ctx context.Context, _, _ string) (net.Conn, error) {
			nc, err := back.Dial(ctx)
			if err != nil {
				return nil, err
			}
			return fw.faults.Wrap(nc), nil
		},
	})})
	table := &Table{Default: to(pools), IdleTimeout: faultyIdle, HeaderReadTimeout: faultyIdle}
	table.Default.Forward.Timeout, table.Default.Forward.TotalTimeout = faultyTotal/2, faultyTotal
	if x.retries {
		table.Default.Forward.Retry = &exchange.Retry{Attempts: 3, ConnectFailure: true, Reset: true, RefusedStream: true, Codes: []int{502, 503, 504}, PerTry: faultyIdle}
	}
	fw.server = New(Options{Listener: "front", Table: fixed(table), Logger: fw.logger(hclog.Error)})
	served := make(chan error, 1)
	go func() { served <- fw.server.Serve(fw.front) }()
	fw.transport = &http.Transport{Protocols: new(http.Protocols), DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return fw.front.Dial(ctx) }}
	fw.transport.Protocols.SetHTTP1(x.front == backs.HTTP1)
	fw.transport.Protocols.SetUnencryptedHTTP2(x.front == backs.HTTP2)
	t.Cleanup(func() {
		fw.transport.CloseIdleConnections()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = fw.server.Shutdown(ctx)
		<-served
		pools.Retire()
		time.Sleep(time.Minute) // an HTTP/2 connection sends GOAWAY before it closes
		if n := fw.faults.Open(); n != 0 {
			t.Errorf("%d connections to the upstream are still open", n)
		}
		srv.Close()
		<-ended
	})
	return fw
}

// serveUpstream counts requests. A panic other than http.ErrAbortHandler fails the test.
func (f *faultyTestbed) serveUpstream(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked[r.Header.Get("Request")]++
	f.mu.Unlock()
	defer func() {
		p := recover()
		if p != nil && p != http.ErrAbortHandler {
			f.t.Error(p)
		}
		if p != nil {
			panic(http.ErrAbortHandler)
		}
	}()
	f.kind.serve(w, r)
}

// id returns an identifier for the next request.
func (f *faultyTestbed) id() string {
	f.next++
	return fmt.Sprint(f.next)
}

// exchange sends a request. It reports whether the response looks complete, and returns
// an error if it looks complete but differs from what the upstream sent.
func (f *faultyTestbed) exchange(method string, body io.Reader, want, trailer string) (whole bool, err error) {
	req, _ := http.NewRequestWithContext(f.t.Context(), method, "http://upstream.test/", body)
	req.Header.Set("Request", f.id())
	if body != nil && req.ContentLength <= 0 {
		req.Trailer = http.Header{"End": {"yes"}}
	}
	res, err := f.transport.RoundTrip(req)
	if err != nil {
		return false, nil
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	switch {
	case err != nil || res.StatusCode >= 400:
		return false, nil
	case string(got) != want:
		return false, fmt.Errorf("%d of %d bytes look complete", len(got), len(want))
	case trailer != "" && res.Trailer.Get(trailer) != "yes":
		return false, fmt.Errorf("a response without its trailer looks complete")
	}
	return true, nil
}

// stream makes a call that sends each message after the answer to the previous one.
func (f *faultyTestbed) stream() (whole bool, err error) {
	body, upload := io.Pipe()
	defer upload.Close()
	req, _ := http.NewRequestWithContext(f.t.Context(), "POST", "http://upstream.test/", body)
	req.Header.Set("Request", f.id())
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	res, err := f.transport.RoundTrip(req)
	if err != nil {
		return false, nil
	}
	defer res.Body.Close()
	got := make([]byte, 100)
	for i := range 4 {
		sent := bytes.Repeat([]byte{byte('a' + i)}, len(got))
		if _, err := upload.Write(sent); err != nil {
			break
		}
		if n, err := io.ReadFull(res.Body, got); err != nil {
			upload.CloseWithError(err)
			break
		} else if !bytes.Equal(got[:n], sent) {
			return false, fmt.Errorf("message %d was changed", i)
		}
	}
	upload.Close()
	rest, err := io.ReadAll(res.Body)
	status := res.Trailer.Get("Grpc-Status")
	if err != nil || status != "0" {
		return false, nil
	}
	if got[0] != 'd' || len(rest) > 0 {
		return false, fmt.Errorf("a call with a part of its messages looks complete")
	}
	return true, nil
}

// webSocket opens a WebSocket and has a message echoed.
func (f *faultyTestbed) webSocket() (whole bool, err error) {
	nc, err := f.front.Dial(f.t.Context())
	if err != nil {
		return false, err
	}
	client := http2.NewClientConn(nc, http2.Options{})
	ended := make(chan struct{})
	go func() { defer close(ended); _ = client.Run() }()
	defer func() { client.Close(); <-ended }()
	synctest.Wait() // the gateway's settings have arrived
	s := client.Open()
	defer s.Done()
	if err := s.Send(&message.Request{Method: "CONNECT", Protocol: "websocket", Scheme: "http", Authority: "upstream.test", Target: "/", Length: -1,
		Fields: message.Fields{{Name: "sec-websocket-version", Value: "13"}, {Name: "request", Value: f.id()}}}, false); err != nil {
		return false, err
	}
	_ = s.Flush()
	var head message.Response
	if err := s.Receive(&head); err != nil || head.Status != 200 {
		s.Abort(err)
		return false, nil
	}
	sent := strings.Repeat(faultyUpload, 20)
	var sending sync.WaitGroup
	sending.Go(func() {
		if s.Write([]byte(sent)) == nil {
			_ = s.End(nil)
		}
	})
	defer sending.Wait()
	var got []byte
	for {
		p, err := s.Read()
		got = append(got, p...)
		switch {
		case err == io.EOF && string(got) != sent:
			s.Abort(err)
			return false, fmt.Errorf("%d of %d bytes of a tunnel look complete", len(got), len(sent))
		case err == io.EOF:
			return true, nil
		case err != nil:
			s.Abort(err)
			return false, nil
		}
	}
}

// run makes two exchanges, one after the other, with one fault in the first
// connection to the upstream. It returns the number of operations on that connection.
func (x *faultySetting) run(t *testing.T, fault faulttest.Fault) (ops int) {
	f := newFaultyTestbed(t, x, fault)
	for i := range 2 {
		begin := time.Now()
		whole, err := x.kind.ask(f)
		if err != nil {
			t.Error(err)
		}
		first := i == 0 && fault.Kind != faulttest.None
		if !whole && (!first && fault.Kind == faulttest.None || first && fault.At == 0 && x.retries && x.kind.idempotent) {
			t.Errorf("exchange %d failed\n%s", i, f.log)
		}
		limit := faultyTotal
		if x.kind.upgrades {
			limit += faultyTunnel
		}
		if took := time.Since(begin); took > limit {
			t.Errorf("exchange %d took %v", i, took)
		}
	}
	f.transport.CloseIdleConnections()
	time.Sleep(faultyTotal) // gives the gateway time to read the rest of an upload that was answered early
	if n, kept := f.server.Stats().InFlight, f.server.shared.Kept(); n != 0 || kept != 0 {
		t.Errorf("left: %d requests, %d bytes kept", n, kept)
	}
	f.mu.Lock()
	for id, n := range f.asked {
		if n > 1 && !x.kind.idempotent {
			t.Errorf("request %s was processed %d times", id, n)
		}
	}
	f.mu.Unlock()
	if log := f.log.String(); strings.Contains(log, "panic while") {
		t.Error(log)
	}
	return f.faults.Conns()[0].Ops()
}

// A read or write of a connection to an upstream fails, is cut off or stalls, in the
// handshake, in an exchange, or between two exchanges. No message that was cut off looks
// complete, only idempotent requests are repeated, every exchange ends in time, and no
// resource leaks. FAULTS=all tries every position; the default is a sample.
func TestFaultsOfUpstreamConnections(t *testing.T) {
	t.Parallel()
	for i := range upstreamKinds {
		kind := &upstreamKinds[i]
		for n := range 16 {
			x := &faultySetting{kind: kind, front: backs.HTTP1, back: backs.HTTP1, secure: n&1 != 0, retries: n&2 != 0}
			if n&4 != 0 {
				x.front = backs.HTTP2
			}
			if n&8 != 0 {
				x.back = backs.HTTP2
			}
			if kind.onlyFront != 0 && kind.onlyFront != x.front || kind.onlyBack != 0 && kind.onlyBack != x.back || kind.upgrades && x.retries {
				continue
			}
			t.Run(x.String(), func(t *testing.T) {
				t.Parallel()
				faulttest.Each(t, faultyPositions(), x.run)
			})
		}
	}
}

// faultyPositions returns how many positions are tried; 0: all.
func faultyPositions() int {
	switch {
	case os.Getenv("FAULTS") == "all":
		return 0
	case alloctest.Race || testing.Short():
		return 3
	}
	return 6
}

// acceptKey returns the Sec-WebSocket-Accept that answers r.
func acceptKey(r *http.Request) string {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
