package wire

import (
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A countedConn counts the bytes that are read.
type countedConn struct {
	net.Conn
	n int
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n += n
	return n, err
}

// A peer that gets no close_notify must assume that the stream was cut off.
func TestCloseWriteSendsCloseNotify(t *testing.T) {
	near, far := connected(t)
	ca := certstest.NewCA(t)
	server := tls.Server(socket.New(near, nil), &tls.Config{
		Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "front.test"))}, SessionTicketsDisabled: true,
	})
	received := &countedConn{Conn: far}
	client := tls.Client(received, &tls.Config{RootCAs: ca.Pool(), ServerName: "front.test", MinVersion: tls.VersionTLS13})
	done := make(chan error, 1)
	go func() { done <- client.Handshake() }()
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s := NewStream(server, new(socket.Pool), nil)
	received.n = 0
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client read: %v", err)
	}
	if received.n != closeNotify {
		t.Errorf("the client received %d bytes instead of a close_notify", received.n)
	}
	if n, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%d more bytes, %v", n, err)
	}
}

// closeNotify is the length of a close_notify in TLS 1.3: a record's header, the alert,
// its type and the tag.
const closeNotify = 5 + 2 + 1 + 16
