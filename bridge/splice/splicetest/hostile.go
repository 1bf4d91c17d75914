package splicetest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"testing"
	"time"
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
	Sent int // bytes sent
}

// Hostile takes over the sending side of p. A server must not have sent a session ticket.
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

// KeyUpdate sends a KeyUpdate and switches to new keys. If requested is set, the other
// side must update its own keys.
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

// HostileConfig returns a copy of config for connections that Hostile takes over, and the
// Secrets of these connections.
func HostileConfig(config *tls.Config) (*tls.Config, *Secrets) {
	secrets := new(Secrets)
	config = config.Clone()
	config.KeyLogWriter, config.SessionTicketsDisabled, config.MinVersion = secrets, true, tls.VersionTLS13
	return config, secrets
}

// floodLimit is far more than the kernel buffers of a connection: a gateway that accepts
// so much of a flood has no bound.
const floodLimit = 64 << 20

// Floods are records that carry no data and can be sent without end. crypto/tls ends each
// of them.
var Floods = map[string]func(h *Hostile) error{
	"key updates":                   func(h *Hostile) error { return h.KeyUpdate(false) },
	"key updates that request one":  func(h *Hostile) error { return h.KeyUpdate(true) },
	"empty records":                 func(h *Hostile) error { return h.Send(ApplicationRecord, nil) },
	"empty handshake records":       func(h *Hostile) error { return h.Send(HandshakeRecord, nil) },
	"warnings":                      func(h *Hostile) error { return h.Send(AlertRecord, []byte{1, 90}) },
	"session tickets":               func(h *Hostile) error { return h.Send(HandshakeRecord, ticket) },
	"a handshake message of 16 MiB": func(h *Hostile) error { return h.Send(HandshakeRecord, endless) },
	"many messages in one record": func(h *Hostile) error {
		return h.Send(HandshakeRecord, bytes.Repeat(ticket, 500))
	},
	"empty records and key updates": func(h *Hostile) error {
		if err := h.Send(ApplicationRecord, nil); err != nil {
			return err
		}
		return h.KeyUpdate(true)
	},
}

// ThinFloods are records of a byte between records that carry no data. crypto/tls accepts
// any number of them; a socket.RecordMeter does not.
var ThinFloods = map[string]func(h *Hostile) error{
	"key updates between data": func(h *Hostile) error { return errors.Join(h.KeyUpdate(true), h.Send(ApplicationRecord, []byte("x"))) },
	"empty records between data": func(h *Hostile) error {
		return errors.Join(h.Send(ApplicationRecord, nil), h.Send(ApplicationRecord, nil), h.Send(ApplicationRecord, []byte("x")))
	},
	"session tickets between data": func(h *Hostile) error {
		return errors.Join(h.Send(HandshakeRecord, ticket), h.Send(ApplicationRecord, []byte("x")))
	},
}

// AllFloods returns Floods and ThinFloods.
func AllFloods() map[string]func(h *Hostile) error {
	all := maps.Clone(Floods)
	maps.Copy(all, ThinFloods)
	return all
}

var (
	// ticket is a NewSessionTicket (RFC 8446, section 4.6.1) of one byte.
	ticket = []byte{4, 0, 0, 14, 0, 0, 14, 16, 1, 2, 3, 4, 0, 0, 1, 7, 0, 0}
	// endless is the beginning, or a part of the content, of a NewSessionTicket of 16
	// MiB.
	endless = bytes.Repeat([]byte{4, 255, 255, 255}, 4000)
)

// WantFloodEnded sends a flood until the gateway ends the connection.
func WantFloodEnded(t testing.TB, raw net.Conn, sent func() int, flood func() error) {
	t.Helper()
	raw.SetDeadline(time.Now().Add(time.Minute))
	answers := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, raw) // discards answers, such as requested key updates
		answers <- err
	}()
	for sent() < floodLimit {
		if err := flood(); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the gateway has stopped reading after %d bytes, and did not end the connection", sent())
			}
			break
		}
	}
	if sent() >= floodLimit {
		t.Errorf("the gateway accepted %d bytes", sent())
		raw.Close()
	}
	if err := <-answers; errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open")
	}
}
