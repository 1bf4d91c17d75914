package soak

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/drawbridge-gateway/drawbridge/bench/backend"
	"github.com/drawbridge-gateway/drawbridge/bench/wire"
)

// A client repeats one kind of exchange or session.
type client struct {
	kind    string
	workers int
	pause   time.Duration // after each exchange
	once    func(ctx context.Context) error
	fragile bool // its endpoints are killed, which may end an exchange
}

// exchangeTimeout bounds an exchange or session. It is far longer than an
// exchange takes.
const exchangeTimeout = time.Minute

// repeat works until ctx ends. An exchange that has begun is completed.
func (c *client) repeat(ctx context.Context, s *site, t *tally) {
	for ctx.Err() == nil {
		began := time.Now()
		once, cancel := context.WithTimeout(context.WithoutCancel(ctx), exchangeTimeout)
		err := c.once(once)
		cancel()
		switch {
		case err == nil:
			t.count(c.kind)
		case c.fragile && s.broken(began):
			t.permit(c.kind, "its endpoint failed")
		default:
			t.fail(c.kind, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(c.pause):
		}
	}
}

// A clientSet is every client of a run, with the connections that they share.
type clientSet struct {
	all    []*client
	idle   []*http.Transport
	shared []io.Closer
}

func (c *clientSet) close() {
	for _, t := range c.idle {
		t.CloseIdleConnections()
	}
	for _, s := range c.shared {
		_ = s.Close()
	}
}

// clients returns one client of each kind.
func (s *site) clients(t *tally) *clientSet {
	c := &clientSet{}
	transport := func(protos http.Protocols, config *tls.Config) *http.Transport {
		tr := &http.Transport{Protocols: &protos, TLSClientConfig: config, DisableCompression: true}
		c.idle = append(c.idle, tr)
		return tr
	}
	var http1, http2 http.Protocols
	http1.SetHTTP1(true)
	http2.SetHTTP2(true)
	kept, fresh, overTLS, multiplexed := transport(http1, nil), transport(http1, nil), transport(http1, s.clientTLS("http/1.1")), transport(http2, s.clientTLS("h2"))
	fresh.DisableKeepAlives, overTLS.DisableKeepAlives = true, true

	rpc, err := grpc.NewClient("passthrough:///"+s.addresses["rpc"], grpc.WithTransportCredentials(credentials.NewTLS(s.clientTLS("h2"))))
	if err != nil {
		t.fail("gRPC", err)
	} else {
		c.shared = append(c.shared, rpc)
	}
	get := func(tr *http.Transport, scheme, listener string, size uint64) func(context.Context) error {
		return func(ctx context.Context) error { return s.get(ctx, tr, scheme, listener, size) }
	}
	c.all = []*client{
		{kind: "L4, new connection", workers: 2, pause: 40 * time.Millisecond, once: func(ctx context.Context) error { return s.echo(ctx, "raw", 1, 0) }},
		{kind: "L4 over TLS, new connection", workers: 2, pause: 60 * time.Millisecond, once: func(ctx context.Context) error { return s.echo(ctx, "raw-tls", 1, 0) }},
		{kind: "L4, session", workers: 10, once: func(ctx context.Context) error { return s.echo(ctx, "raw", 20, 100*time.Millisecond) }},
		{kind: "HTTP/1.1, new connection", workers: 2, pause: 20 * time.Millisecond, once: get(fresh, "http", "web", 2_000)},
		{kind: "HTTP/1.1, kept connection", workers: 4, pause: 10 * time.Millisecond, once: get(kept, "http", "web", 20_000)},
		{kind: "HTTP/1.1 over TLS, new connection", workers: 2, pause: 60 * time.Millisecond, once: get(overTLS, "https", "web-tls", 2_000)},
		{kind: "HTTP/2", workers: 10, pause: 40 * time.Millisecond, once: get(multiplexed, "https", "web-tls", 50_000)},
		{kind: "gRPC, call", workers: 4, pause: 20 * time.Millisecond, once: func(ctx context.Context) error { return call(ctx, rpc) }},
		{kind: "gRPC, stream", workers: 6, once: func(ctx context.Context) error { return stream(ctx, rpc) }},
		{kind: "WebSocket, session", workers: 6, once: func(ctx context.Context) error { return s.messages(ctx) }},
		{kind: "HTTP/1.1, endpoints that fail", workers: 6, pause: 10 * time.Millisecond, fragile: true, once: func(ctx context.Context) error { return s.getSlow(ctx, fresh) }},
	}
	return c
}

var errMismatch = errors.New("the response differs from the requested data")

// echo makes round trips on one connection.
func (s *site) echo(ctx context.Context, listener string, trips int, pause time.Duration) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.addresses[listener])
	if err != nil {
		return fmt.Errorf("connect: %w", withoutAddresses(err))
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	if listener == "raw-tls" {
		conn = tls.Client(conn, s.clientTLS())
	}
	out, in := wire.At(rand.Uint64(), 0, 500), make([]byte, 500)
	for i := range trips {
		send := out
		if i == 0 {
			send = append(wire.AppendHeader(nil, wire.Echo, 0), out...)
		}
		if _, err := conn.Write(send); err != nil {
			return fmt.Errorf("write %d: %w", i, withoutAddresses(err))
		}
		if _, err := io.ReadFull(conn, in); err != nil {
			return fmt.Errorf("read %d: %w", i, withoutAddresses(err))
		}
		if !bytes.Equal(in, out) {
			return errMismatch
		}
		time.Sleep(pause) // sets the pace
	}
	return nil
}

// withoutAddresses returns the cause without the addresses, so that equal causes count as
// one.
func withoutAddresses(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// get makes a request, and checks every byte of the response.
func (s *site) get(ctx context.Context, tr *http.Transport, scheme, listener string, size uint64) error {
	seed := rand.Uint64()
	text, err := s.ask(ctx, tr, scheme+"://"+s.addresses[listener]+"/bytes/"+strconv.FormatUint(size, 10)+"/"+strconv.FormatUint(seed, 16))
	if err != nil {
		return err
	}
	if uint64(len(text)) != size || !wire.Matches(seed, 0, text) {
		return errMismatch
	}
	return nil
}

// getSlow makes a request to an endpoint that may fail.
func (s *site) getSlow(ctx context.Context, tr *http.Transport) error {
	text, err := s.ask(ctx, tr, "http://"+s.addresses["fragile"]+"/")
	if err == nil && !bytes.Equal(text, wire.At(1, 0, slowBody)) {
		return errMismatch
	}
	return err
}

func (s *site) ask(ctx context.Context, tr *http.Transport, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := tr.RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("request: %w", withoutAddresses(err))
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("body: %w", withoutAddresses(err))
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
	return text, nil
}

func call(ctx context.Context, c *grpc.ClientConn) error {
	out, in := &wrapperspb.BytesValue{Value: wire.At(rand.Uint64(), 0, 300)}, new(wrapperspb.BytesValue)
	if err := c.Invoke(ctx, backend.EchoUnary, out, in); err != nil {
		return err
	}
	if !bytes.Equal(in.Value, out.Value) {
		return errMismatch
	}
	return nil
}

// stream keeps a stream open for two seconds.
func stream(ctx context.Context, c *grpc.ClientConn) error {
	s, err := c.NewStream(ctx, &backend.EchoStreams, backend.EchoStream)
	if err != nil {
		return err
	}
	out, in := &wrapperspb.BytesValue{Value: wire.At(rand.Uint64(), 0, 300)}, new(wrapperspb.BytesValue)
	for range 20 {
		if err := s.SendMsg(out); err != nil && !errors.Is(err, io.EOF) { // then RecvMsg says why
			return err
		}
		if err := s.RecvMsg(in); err != nil {
			return err
		}
		if !bytes.Equal(in.Value, out.Value) {
			return errMismatch
		}
		time.Sleep(100 * time.Millisecond) // sets the pace
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if err := s.RecvMsg(in); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the end of the stream is %w", err)
	}
	return nil
}

// messages keeps a WebSocket open for two seconds.
func (s *site) messages(ctx context.Context) error {
	c, _, err := websocket.Dial(ctx, "ws://"+s.addresses["web"]+backend.WebSocketPath, &websocket.DialOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return fmt.Errorf("open: %w", withoutAddresses(err))
	}
	defer func() { _ = c.CloseNow() }()
	out := wire.At(rand.Uint64(), 0, 300)
	for range 20 {
		if err := c.Write(ctx, websocket.MessageBinary, out); err != nil {
			return fmt.Errorf("write: %w", withoutAddresses(err))
		}
		_, in, err := c.Read(ctx)
		if err != nil {
			return fmt.Errorf("read: %w", withoutAddresses(err))
		}
		if !bytes.Equal(in, out) {
			return errMismatch
		}
		time.Sleep(100 * time.Millisecond) // sets the pace
	}
	// The library waits only five seconds for the close of the other side.
	if err := c.Close(websocket.StatusNormalClosure, ""); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
