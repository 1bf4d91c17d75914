package http2

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A failedWriteConn is a connection on which a write fails before the peer's last frames
// are read.
type failedWriteConn struct {
	net.Conn
	once   sync.Once
	failed chan struct{} // closed when a write has failed
	read   func(p []byte) (int, error)
}

func (c *failedWriteConn) Write(p []byte) (int, error) {
	c.once.Do(func() { close(c.failed) })
	return 0, syscall.EPIPE
}

func (c *failedWriteConn) Read(p []byte) (int, error) {
	<-c.failed
	return c.read(p)
}

// ask sends a request over a failedWriteConn and returns the response.
func ask(t *testing.T, read func(*failedWriteConn, []byte) (int, error)) (r message.Response, err error) {
	t.Helper()
	mine, _ := pair(t)
	d := &failedWriteConn{Conn: mine, failed: make(chan struct{})}
	d.read = func(p []byte) (int, error) { return read(d, p) }
	c := NewClientConn(d, Options{})
	s := c.Open()
	if err := s.Send(get("/"), true); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run() }()
	err = s.Receive(&r)
	if c.Room() > 0 || c.CanOpen() {
		t.Error("the connection accepts further requests")
	}
	s.Done()
	await(t, ended, "Run to return")
	return r, err
}

func TestAGoAwayIsReadAfterAFailedWrite(t *testing.T) {
	refused := errors.New("remote error: tls: certificate required")
	_, err := ask(t, func(*failedWriteConn, []byte) (int, error) { return 0, refused })
	if !errors.Is(err, refused) {
		t.Errorf("%v, want the peer's reason", err)
	}
}

func TestAResponseIsReadAfterAFailedWrite(t *testing.T) {
	theirs, far := pair(t)
	server := newRaw(t, far)
	server.must(server.WriteSettings())
	server.headers(1, true, ":status: 403")
	server.must(server.WriteGoAway(1, h2.ErrCodeNo, nil))
	far.Close()
	r, err := ask(t, func(_ *failedWriteConn, p []byte) (int, error) { return theirs.Read(p) })
	if err != nil || r.Status != 403 {
		t.Errorf("%d, %v", r.Status, err)
	}
}

// If nothing arrives after a failed write, the connection still ends.
func TestTheReadAfterAFailedWriteIsBounded(t *testing.T) {
	_, err := ask(t, func(d *failedWriteConn, p []byte) (int, error) { return d.Conn.Read(p) })
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("%v, want the write error", err)
	}
}
