package certs

import (
	"errors"
	"net"
	"testing"
)

type refusingConn struct {
	net.Conn
	calls int
}

func (c *refusingConn) BeginWait() bool {
	c.calls++
	return false
}

// If reads cannot wait, the random value of a second ClientHello fails with a reason.
// No other read of random bytes fails.
func TestRenegotiationWhereReadsCannotWait(t *testing.T) {
	conn := &refusingConn{}
	r := &renegotiation{conn: conn}
	hello, iv := make([]byte, helloRandom), make([]byte, 16)
	if _, err := r.Read(hello); err != nil || conn.calls != 0 {
		t.Errorf("the first handshake: %v, %d calls of BeginWait", err, conn.calls)
	}
	r.established = true
	if n, err := r.Read(iv); n != len(iv) || err != nil || conn.calls != 0 {
		t.Errorf("a record: %v, %d calls of BeginWait", err, conn.calls)
	}
	_, err := r.Read(hello)
	if err == nil || conn.calls != 1 {
		t.Fatalf("a second handshake: %v, %d calls of BeginWait", err, conn.calls)
	}
	// crypto/tls wraps the error in this way.
	if got := Classify(errors.New("tls: short read from Rand: " + err.Error())); got != ReasonRenegotiationRequested {
		t.Errorf("reason %q", got)
	}
	if _, err := (&renegotiation{conn: &net.TCPConn{}, established: true}).Read(hello); err != nil {
		t.Errorf("a connection whose reads always wait: %v", err)
	}
}
