package intake

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/clienthello"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// Handshake completes the client's TLS handshake on s, the socket of c, before deadline,
// and returns the client. If the handshake fails, Handshake closes the connection, after
// the client has had time to read the alert.
func (i *Intake) Handshake(c *Conn, t *certs.Servers, tc *tls.Conn, s *socket.Socket, deadline time.Time) (*certs.Peer, *Refusal) {
	first := i.firsts.Get().(*[helloBytes]byte)
	s.Record(first[:0])
	_ = s.SetDeadline(deadline) // fails only on a closed connection, and then the handshake fails too
	records := socket.MeterRecords(s)
	peer, err := t.Handshake(tc)
	recorded := s.Recorded()
	if err != nil {
		reason := certs.ClassifyAccept(err)
		if reason == certs.ReasonOther && hasTrailingDot(recorded) {
			reason, err = certs.ReasonUnrecognizedName, fmt.Errorf("%w (%w)", clienthello.ErrTrailingDot, err)
		}
		i.firsts.Put(first)
		return nil, i.Refuse(c, s, reason, err)
	}
	i.firsts.Put(first)
	_ = s.SetDeadline(time.Time{})
	state := tc.ConnectionState()
	if state.Version != tls.VersionTLS13 {
		records.Stop()
	}
	if state.DidResume {
		i.count.resumed.Add(1)
	} else {
		i.count.full.Add(1)
	}
	return peer, nil
}

// helloBytes is larger than nearly all ClientHellos.
const helloBytes = 2 << 10

// hasTrailingDot reports whether the server name in a ClientHello ends with a dot.
// crypto/tls rejects such a ClientHello as malformed and does not return it.
func hasTrailingDot(stream []byte) bool {
	var scan clienthello.Scanner
	if whole, err := scan.Feed(stream); !whole || err != nil {
		return false
	}
	_, err := scan.Hello()
	return errors.Is(err, clienthello.ErrTrailingDot)
}

// Refuse counts a failed handshake and closes the connection in the same way as
// Handshake.
func (i *Intake) Refuse(c *Conn, s *socket.Socket, reason certs.Reason, err error) *Refusal {
	c.refused.Store(true)
	i.count.handshakeFailed(reason)
	if reason == certs.ReasonHandshakeTimeout {
		s.Close() // no alert was sent
	} else {
		s.LingerClose()
	}
	return &Refusal{HandshakeFailed, reason, err}
}
