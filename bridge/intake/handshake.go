package intake

import (
	"crypto/tls"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// Handshake completes the client's TLS handshake on s before deadline. If the handshake
// fails, Handshake closes the connection, after the client has had time to read the
// alert.
func (i *Intake) Handshake(tc *tls.Conn, s *socket.Socket, deadline time.Time) *Refusal {
	_ = s.SetDeadline(deadline) // fails only on a closed connection, and then the handshake fails too
	if err := tc.Handshake(); err != nil {
		return i.Refuse(s, certs.ClassifyAccept(err), err)
	}
	_ = s.SetDeadline(time.Time{})
	if tc.ConnectionState().DidResume {
		i.count.resumed.Add(1)
	} else {
		i.count.full.Add(1)
	}
	return nil
}

// Refuse counts a failed handshake and closes the connection as Handshake does.
func (i *Intake) Refuse(s *socket.Socket, reason certs.Reason, err error) *Refusal {
	i.count.handshakeFailed(reason)
	if reason == certs.ReasonHandshakeTimeout {
		s.Close() // no alert was sent
	} else {
		s.LingerClose()
	}
	return &Refusal{HandshakeFailed, reason, err}
}
