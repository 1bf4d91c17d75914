package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/faulttest"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A faultyUse is a use of a connection to an endpoint.
type faultyUse struct {
	name            string
	secure, headers bool
	warm            int
	check           func(ctx context.Context, e *upstream.Endpoint) error
}

var faultyUses = []faultyUse{
	{name: "traffic in plaintext"},
	{name: "traffic in plaintext with a header", headers: true},
	{name: "traffic over TLS", secure: true},
	{name: "traffic over TLS with a header", secure: true, headers: true},
	{name: "traffic on a warm connection", secure: true, warm: 1},
	{name: "a check by connection", headers: true, check: func(ctx context.Context, e *upstream.Endpoint) error {
		c, err := e.CheckConnect(ctx)
		if err == nil {
			c.Close()
		}
		return err
	}},
	{name: "a check by handshake", secure: true, check: func(ctx context.Context, e *upstream.Endpoint) error {
		return e.CheckHandshake(ctx, upstream.Stream, "")
	}},
	{name: "a check by request over TLS", secure: true, headers: true, check: func(ctx context.Context, e *upstream.Endpoint) error {
		c, err := e.CheckDial(ctx, upstream.Stream, "")
		if err != nil {
			return err
		}
		defer c.Close()
		return exchangeHello(c)
	}},
}

// exchangeHello sends a message to an echoing peer and reads it back.
func exchangeHello(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(filled{c}, got); err != nil {
		return err
	}
	if string(got) != "hello" {
		return fmt.Errorf("%q came back", got)
	}
	return nil
}

// A filled is a connection whose Socket may be a Stream.
type filled struct{ net.Conn }

func (c filled) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if n > 0 || !errors.Is(err, socket.ErrWouldBlock) {
			return n, err
		}
		if err := socket.Of(c.Conn).Fill(); err != nil {
			return 0, err
		}
	}
}

// serve echoes each connection, after its header.
func (x *faultyUse) serve(c net.Conn, config *tls.Config) {
	defer c.Close()
	var in io.Reader = c
	if x.headers {
		r := bufio.NewReader(c)
		if line, err := r.ReadString('\n'); err != nil || line != "PROXY UNKNOWN\r\n" {
			return
		}
		in = r
	}
	if x.secure {
		tc := tls.Server(readFrom{c, in}, config)
		c, in = tc, tc
	}
	_, _ = io.Copy(c, in)
}

// A readFrom is a connection whose first bytes were already read.
type readFrom struct {
	net.Conn
	io.Reader
}

func (c readFrom) Read(p []byte) (int, error) { return c.Reader.Read(p) }

// run injects one fault into the first connection. It returns the number of operations
// on that connection.
func (x *faultyUse) run(t *testing.T, fault faulttest.Fault) (ops int) {
	ca := certstest.NewCA(t)
	config := &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool()}
	ln, faults := faulttest.Listen(), faulttest.NewInjector(fault)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go x.serve(c, config)
		}
	}()
	defer ln.Close()

	descriptors := socket.NewDescriptors(func() int { return 1000 })
	log := new(bytes.Buffer)
	o := upstream.Options{
		Name: "up", Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: "up.test:1"}}, Warm: x.warm,
		ConnectTimeout: time.Second, HandshakeTimeout: time.Second, Descriptors: descriptors, Tracker: upstream.NewTracker(),
		Logger: hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Error}),
		Connect: func(ctx context.Context, network, address string) (net.Conn, error) {
			if network != "tcp" || address != "up.test:1" {
				t.Errorf("%s %s is dialed", network, address)
			}
			c, err := ln.Dial(ctx)
			if err != nil {
				return nil, err
			}
			return faults.Wrap(c), nil
		},
		Check: upstream.CheckOptions{Check: x.check, Interval: 10 * time.Second, Unhealthy: 1, Healthy: 1},
	}
	if x.headers {
		o.ProxyProtocol = proxyproto.V1
	}
	if x.secure {
		o.Endpoints[0].Stream = newClient(t, certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{ca.Trust(t)}, Certificate: certstest.Certificate(t, ca.Client(t, "gate"))})
	}
	u := upstream.New(o)
	u.Start()
	time.Sleep(time.Second) // gives a warm connection time to be opened
	if x.check == nil {
		x.use(t, u, fault)
	}
	time.Sleep(time.Minute) // gives the upstream time to be checked and to recover
	if st := u.Status()[0]; !st.Available {
		t.Errorf("the endpoint is unavailable: %s", st.Unavailable)
	}
	u.Retire()
	synctest.Wait()
	if _, _, upstreams := descriptors.Usage(); upstreams != 0 || faults.Open() != 0 || u.Status()[0].Open != 0 {
		t.Errorf("%d connections are counted, %d sockets and %d of the endpoint are open", upstreams, faults.Open(), u.Status()[0].Open)
	}
	if s := log.String(); s != "" {
		t.Error(s)
	}
	return faults.Conns()[0].Ops()
}

// use dials twice. The second connection has no fault.
func (x *faultyUse) use(t *testing.T, u *upstream.Upstream, fault faulttest.Fault) {
	for i := range 2 {
		begin := time.Now()
		c, _, err := u.Dial(context.Background(), upstream.Stream)
		if err == nil {
			err = exchangeHello(c)
			c.Close()
		}
		if err != nil && (i == 1 && x.warm == 0 || fault.Kind == faulttest.None) {
			t.Errorf("connection %d: %v", i, err)
		}
		// crypto/tls waits up to 5 seconds for its close_notify to be written.
		if took := time.Since(begin); took > 9*time.Second {
			t.Errorf("connection %d took %v", i, took)
		}
	}
}

// A read or write of a connection to an endpoint fails, is cut off or stalls: in the
// header, in the handshake or after it, in traffic, on a warm connection or in a health
// check. The caller gets the error in time, the next connection works, and no resource
// leaks.
func TestFaultsOfEndpointConnections(t *testing.T) {
	for i := range faultyUses {
		x := &faultyUses[i]
		t.Run(x.name, func(t *testing.T) { faulttest.Each(t, 0, x.run) })
	}
}
