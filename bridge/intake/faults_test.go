package intake_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/faulttest"
	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A beginning is a way in which a client begins a connection.
type beginning struct {
	name     string
	header   string // the PROXY protocol header, sent in pieces
	secure   bool   // the client makes a TLS handshake, in records of a few bytes
	garbage  bool   // the client sends other bytes instead of a ClientHello
	mismatch bool   // the client offers only versions that the server rejects
}

const headerV2 = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x30\x39\x01\xbb"

var beginnings = []beginning{
	{name: "no header, plaintext"},
	{name: "header of version 1, plaintext", header: "PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n"},
	{name: "header of version 2, plaintext", header: headerV2},
	{name: "no header, TLS", secure: true},
	{name: "header of version 1, TLS", header: "PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n", secure: true},
	{name: "a rejected ClientHello", secure: true, mismatch: true},
	{name: "no ClientHello", secure: true, garbage: true},
}

// client returns the client that a connection must belong to.
func (b *beginning) client() string {
	if b.header != "" {
		return "192.0.2.1:12345"
	}
	return "127.0.0.1:40000"
}

// run begins a connection with a fault, and then one without. It returns the
// number of operations on the first connection.
func (b *beginning) run(t *testing.T, fault faulttest.Fault) (ops int) {
	ca := certstest.NewCA(t)
	rules := &intake.Rules{MaxPerClient: 1, HandshakeTimeout: time.Second}
	if b.header != "" {
		rules.ProxyProtocol, _ = proxyproto.NewTrust([]string{"127.0.0.1"})
	}
	var listenerTLS *certs.Server
	if b.secure {
		var err error
		if listenerTLS, err = certs.NewServer(certs.ServerOptions{Certificates: []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "x.test"))}}); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	ln, faults := faulttest.Listen(), faulttest.NewInjector(fault)
	descriptors := socket.NewDescriptors(func() int { return 1000 })
	s := serveOn(t, faults.Listener(ln), rules, listenerTLS, intake.Options{Descriptors: descriptors, Logger: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Error})})
	s.greets = true
	for i := range 2 {
		begin := time.Now()
		served, err := b.connect(t, ln, ca)
		if err != nil {
			t.Error(err)
		}
		healthy := (fault.Kind == faulttest.None || i == 1) && !b.garbage && !b.mismatch
		if served != healthy && (healthy || b.garbage || b.mismatch) {
			t.Errorf("connection %d is served: %v", i, served)
		}
		// The end of the client's stream, or a time limit, ends the connection.
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("connection %d took %v", i, took)
		}
		_, clients, _ := descriptors.Usage()
		if open := s.Stats().Open; open != 0 || clients != 0 || faults.Open() != 0 {
			t.Errorf("connection %d: %d are open, %d clients, %d sockets", i, open, clients, faults.Open())
		}
	}
	if log.Len() > 0 {
		t.Error(log.String())
	}
	return faults.Conns()[0].Ops()
}

// connect reports whether a connection is served. It returns an error if the
// connection is served as another client's, or if an incomplete stream looks
// complete.
func (b *beginning) connect(t *testing.T, ln *faulttest.Listener, ca *certstest.CA) (served bool, err error) {
	raw, err := ln.Dial(context.Background())
	if err != nil {
		return false, err
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(4 * time.Second))
	if _, err := faulttest.InPieces(raw, 7).Write([]byte(b.header)); err != nil {
		return false, nil
	}
	c := raw
	switch {
	case b.garbage:
		io.WriteString(raw, "GET / HTTP/1.0\r\n\r\n")
	case b.secure:
		config := &tls.Config{RootCAs: ca.Pool(), ServerName: "x.test"}
		if b.mismatch {
			config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
		}
		tc := tls.Client(faulttest.InPieces(raw, 300), config)
		if tc.Handshake() != nil {
			return false, nil
		}
		c = tc
	}
	in := bufio.NewReader(c)
	if name, err := in.ReadString('\n'); err != nil {
		return false, nil
	} else if name != b.client()+"\n" {
		return false, fmt.Errorf("served as %q", name)
	}
	const sent = "hello"
	io.WriteString(c, sent)
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	got, err := io.ReadAll(in)
	if err == nil && string(got) == sent {
		return true, nil
	}
	if !strings.HasPrefix(sent, string(got)) {
		return false, fmt.Errorf("%q came back", got)
	}
	return false, nil
}

// A read or write of a new connection fails, is cut off or stalls: in its header, in its
// handshake, in the alert or after them. The connection ends in time, is never served as
// another client's, and frees its place: the client may have only one connection, and its
// next connection is served.
func TestFaultsOfNewConnections(t *testing.T) {
	for i := range beginnings {
		b := &beginnings[i]
		t.Run(b.name, func(t *testing.T) { faulttest.Each(t, 0, b.run) })
	}
}
