package l4_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/faulttest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// A peekedClient begins a connection to a listener that reads the ClientHello.
type peekedClient struct {
	name, serverName string
	header           string // the PROXY protocol header
	upstream         string // the upstream of its connections; "": none
	alert            bool   // the client gets an alert, because no route has its name
}

var peekedClients = []peekedClient{
	{name: "passthrough", serverName: "pass.test", upstream: "pass"},
	{name: "passthrough of an announced client", serverName: "pass.test", header: "PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n", upstream: "pass"},
	{name: "terminated", serverName: "gate.test", upstream: "gate"},
	{name: "unknown name", serverName: "other.test", alert: true},
}

// run begins a connection with a fault. It returns the number of operations on the
// connection.
func (c *peekedClient) run(t *testing.T, fault faulttest.Fault) (ops int) {
	p := newPKI(t)
	dialed := make(chan string, 10)
	refusing := func(name string) *upstream.Upstream {
		return upstream.New(upstream.Options{Name: name, Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: "upstream.test:1"}},
			Connect: func(context.Context, string, string) (net.Conn, error) {
				dialed <- name
				return nil, syscall.ECONNREFUSED
			}})
	}
	table := &l4.Table{
		Peek: true, HandshakeTimeout: time.Second,
		Routes: bySNI(t, map[string]*l4.Target{"pass.test": through(refusing("pass")), "gate.test": to(refusing("gate"))}),
	}
	if !c.alert { // with TLS, the gate terminates connections that match no passthrough
		table.TLS = p.listener(t, "gate.test")
	}
	if c.header != "" {
		table.ProxyProtocol, _ = proxyproto.NewTrust([]string{"127.0.0.1"})
	}
	var log bytes.Buffer
	ln, faults := faulttest.Listen(), faulttest.NewInjector(fault)
	g := l4.New(l4.Options{Listener: "test", Table: func() *l4.Table { return table }, Logger: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Error})})
	served := make(chan error, 1)
	go func() { served <- g.Serve(faults.Listener(ln)) }()

	raw, err := ln.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	raw.SetDeadline(time.Now().Add(4 * time.Second))
	_, _ = io.WriteString(raw, c.header)
	tc := tls.Client(faulttest.InPieces(raw, 200), p.client(c.serverName))
	err = tc.Handshake()
	if alert := err != nil && err.Error() == "remote error: tls: unrecognized name"; fault.Kind == faulttest.None && alert != c.alert {
		t.Errorf("the handshake ended with %v", err)
	}
	_, _ = tc.Read(make([]byte, 1)) // waits for the end
	raw.Close()
	synctest.Wait()
	time.Sleep(4 * time.Second)
	synctest.Wait()
	if open := g.Stats().Open; open != 0 || faults.Open() != 0 {
		t.Errorf("%d connections are open, %d sockets", open, faults.Open())
	}
	g.Shutdown(canceled())
	<-served
	close(dialed)
	n := 0
	for name := range dialed {
		if n++; name != c.upstream {
			t.Errorf("upstream %q was dialed", name)
		}
	}
	if fault.Kind == faulttest.None && (n > 0) != (c.upstream != "") {
		t.Errorf("%d upstreams were dialed", n)
	}
	if log.Len() > 0 {
		t.Error(log.String())
	}
	return faults.Conns()[0].Ops()
}

// A read or write of a new connection fails, is cut off or stalls: in the header, in the
// ClientHello that is read first, in the handshake, or in the alert. The connection ends in
// time, reaches only its own upstream, and leaks nothing.
func TestFaultsBeforeTheSplice(t *testing.T) {
	for i := range peekedClients {
		c := &peekedClients[i]
		t.Run(c.name, func(t *testing.T) { faulttest.Each(t, 0, c.run) })
	}
}
