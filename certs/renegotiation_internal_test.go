package certs

import (
	"errors"
	"net"
	"testing"
)

type refusingConn struct {
	net.Conn
	asked int
}

func (c *refusingConn) BeginWait() bool {
	c.asked++
	return false
}

// A connection whose reads cannot wait fails with a reason at the start of a
// second handshake, and at no other use of random bytes.
func TestRenegotiationWhereReadsCannotWait(t *testing.T) {
	conn := &refusingConn{}
	r := &renegotiation{conn: conn}
	hello, iv := make([]byte, helloRandom), make([]byte, 16)
	if _, err := r.Read(hello); err != nil || conn.asked != 0 {
		t.Errorf("the first handshake: %v, asked %d times", err, conn.asked)
	}
	r.established = true
	if n, err := r.Read(iv); n != len(iv) || err != nil || conn.asked != 0 {
		t.Errorf("a record: %v, asked %d times", err, conn.asked)
	}
	_, err := r.Read(hello)
	if err == nil || conn.asked != 1 {
		t.Fatalf("a second handshake: %v, asked %d times", err, conn.asked)
	}
	// crypto/tls wraps the error in this way.
	if got := Classify(errors.New("tls: short read from Rand: " + err.Error())); got != ReasonRenegotiationRequested {
		t.Errorf("reason %q", got)
	}
	if _, err := (&renegotiation{conn: &net.TCPConn{}, established: true}).Read(hello); err != nil {
		t.Errorf("a connection whose reads wait anyway: %v", err)
	}
}
