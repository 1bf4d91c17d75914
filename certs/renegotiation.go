package certs

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
)

// errRenegotiation reports that the gateway does not renegotiate on a
// connection whose reads cannot wait for a handshake. Classify finds its text
// in the error of crypto/tls.
var errRenegotiation = errors.New("the server requested TLS renegotiation where it is not allowed: over HTTP/2, or while no HTTP/1.1 response is expected")

// A renegotiation prepares a connection for a second handshake, which crypto/tls
// runs within Read. crypto/tls offers no hook for that, but it begins a handshake by
// reading the random value of the ClientHello. So the renegotiation is the
// connection's source of random bytes.
type renegotiation struct {
	conn        net.Conn
	established bool // the first handshake is complete
}

// helloRandom is the size of the random value in a ClientHello. After the
// handshake crypto/tls otherwise reads only initialization vectors, which are
// shorter.
const helloRandom = 32

// Read implements io.Reader.
func (r *renegotiation) Read(p []byte) (int, error) {
	// A connection whose reads do not block must let them block from now on.
	if w, ok := r.conn.(interface{ BeginWait() bool }); ok && r.established && len(p) == helloRandom && !w.BeginWait() {
		return 0, errRenegotiation
	}
	return rand.Read(p)
}

// allowRenegotiation lets the server renegotiate once, and returns the
// renegotiation.
func allowRenegotiation(config *tls.Config, conn net.Conn) *renegotiation {
	r := &renegotiation{conn: conn}
	config.Renegotiation, config.Rand = tls.RenegotiateOnceAsClient, r
	return r
}
