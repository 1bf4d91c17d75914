package socket_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// A carrier records its calls.
type carrier struct {
	sock   *socket.Socket
	conn   net.Conn
	closed []bool // the argument of each Close
}

func (c *carrier) Read(p []byte) (int, error)  { return copy(p, "read"), nil }
func (c *carrier) Write(p []byte) (int, error) { return c.conn.Write(p) }
func (c *carrier) Traffic() (socket.Traffic, bool) {
	return socket.Traffic{Received: 7}, true
}
func (c *carrier) Close(reset bool) {
	c.closed = append(c.closed, reset)
	c.conn.Close()
	c.sock.Closed()
}

func TestHandOver(t *testing.T) {
	s, peer := pair(t, "tcp")
	s.Stream(new(socket.Pool))
	peer.Write([]byte("early"))
	if err := s.Fill(); err != nil {
		t.Fatal(err)
	}
	called := 0
	s.OnClose(func() { called++ })
	c := &carrier{sock: s}
	conn, taken, err := s.HandOver(c)
	if err != nil || string(taken) != "early" {
		t.Fatalf("%q, %v", taken, err)
	}
	c.conn = conn

	got := make([]byte, 4)
	if n, err := s.Read(got); err != nil || string(got[:n]) != "read" {
		t.Errorf("Read gives %q, %v", got[:n], err)
	}
	// crypto/tls sets such deadlines around a close_notify.
	if err := s.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Error(err)
	}
	if _, err := s.Write([]byte("written")); err != nil {
		t.Error(err)
	}
	s.Reset()
	s.Close()
	if called != 1 || len(c.closed) != 2 || !c.closed[0] || c.closed[1] {
		t.Errorf("called %d times, closed %v", called, c.closed)
	}
	if got, err := io.ReadAll(peer); string(got) != "written" || err != nil {
		t.Errorf("the peer got %q, %v", got, err)
	}
}

// A closed Socket stays closed.
func TestHandOverOfAClosedSocketFails(t *testing.T) {
	s, _ := pair(t, "tcp")
	s.Close()
	if _, _, err := s.HandOver(&carrier{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
}
