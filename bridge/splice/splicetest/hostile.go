package splicetest

import (
	"crypto/tls"
	"net"
	"testing"
)

// Content types of records (RFC 8446, section 5.1).
const (
	AlertRecord       = 21
	HandshakeRecord   = 22
	ApplicationRecord = 23
)

// A Hostile sends TLS 1.3 records that crypto/tls never sends, on a connection whose
// handshake is complete. Nothing else may write to it.
type Hostile struct {
	conn net.Conn
	out  protection
	Sent int // bytes
}

// Hostile takes over what p sends. A server must have sent no session ticket.
func (p *Peer) Hostile(t testing.TB, s *Secrets, isClient bool) *Hostile {
	t.Helper()
	state := p.Conn.(*tls.Conn).ConnectionState()
	if state.Version != tls.VersionTLS13 {
		t.Fatalf("the version is %s", tls.VersionName(state.Version))
	}
	h := &Hostile{conn: p.Raw.Conn, out: protection{suite: suites[state.CipherSuite]}}
	if err := h.out.use(s.traffic(isClient)); err != nil {
		t.Fatal(err)
	}
	return h
}

// Send sends one record.
func (h *Hostile) Send(kind byte, content []byte) error {
	n, err := h.conn.Write(h.out.seal(nil, content, kind, 0))
	h.Sent += n
	return err
}

// KeyUpdate sends a KeyUpdate and switches to new keys. If requested, the other side is
// to update its own.
func (h *Hostile) KeyUpdate(requested bool) error {
	request := byte(0)
	if requested {
		request = 1
	}
	if err := h.Send(HandshakeRecord, []byte{24, 0, 0, 1, request}); err != nil {
		return err
	}
	return h.out.update()
}
