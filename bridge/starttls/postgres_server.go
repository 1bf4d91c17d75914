package starttls

import "encoding/binary"

const (
	postgresGSS     = 80877104
	postgresCancel  = 80877102
	maxStartup      = 10_000 // PostgreSQL's own bound on a startup packet
	maxCancel       = 300    // PostgreSQL 18 has keys of up to 256 bytes
	recordHandshake = 0x16   // the first byte of a TLS handshake
	postgresALPN    = "postgresql"
)

// postgresServer answers a client's requests before its startup packet. A client may
// request GSSAPI once and TLS once, or begin with the TLS handshake, as PostgreSQL 17
// allows.
type postgresServer struct {
	optional   bool
	gssRefused bool
	received   []byte
	result     Opening
}

func newPostgresServer(optional bool) acceptor { return &postgresServer{optional: optional} }

func (s *postgresServer) start() []byte    { return nil }
func (s *postgresServer) waiting() string  { return "the client: its first message" }
func (s *postgresServer) opening() Opening { return s.result }

func (s *postgresServer) feed(in []byte) (out []byte, done bool, err error) {
	s.received = append(s.received, in...)
	if s.received[0] == recordHandshake && !s.gssRefused {
		s.result = Opening{Next: TLS, Read: s.received, ALPN: postgresALPN}
		return nil, true, nil
	}
	if !s.plausible() {
		return nil, false, wrongProtocol(s.received, "PostgreSQL")
	}
	if len(s.received) < 8 {
		return nil, false, nil
	}
	size, code := binary.BigEndian.Uint32(s.received), binary.BigEndian.Uint32(s.received[4:])
	starts := code>>16 == 3 && size > 8 && size <= maxStartup
	switch {
	case size == 8 && (code == postgresSSL || code == postgresGSS && !s.gssRefused):
		return s.encryption(code)
	case code == postgresCancel && size >= 16 && size <= maxCancel:
		if uint32(len(s.received)) < size {
			return nil, false, nil
		}
		s.result = Opening{Next: Cancel, Read: s.received[:size]}
		return nil, true, nil
	case starts && s.optional:
		s.result = Opening{Next: Plaintext, Read: s.received}
		return nil, true, nil
	case starts:
		return postgresFatal("28000", "this server requires TLS (sslmode=require)"), false, refused("the client began a session in plaintext and did not request TLS")
	}
	return nil, false, wrongProtocol(s.received, "PostgreSQL")
}

// encryption answers a request for TLS or GSSAPI. No bytes may follow the
// request before the answer.
func (s *postgresServer) encryption(code uint32) (out []byte, done bool, err error) {
	if extra := len(s.received) - 8; extra > 0 {
		return nil, false, injectedPlaintext(extra)
	}
	if code == postgresGSS {
		s.received, s.gssRefused = nil, true
		return []byte("N"), false, nil
	}
	s.result = Opening{Next: TLS}
	return []byte("S"), true, nil
}

// plausible reports whether the bytes can begin a message: all messages are shorter
// than 64 KiB. So a client of another protocol is rejected before the timeout.
func (s *postgresServer) plausible() bool {
	for _, b := range s.received[:min(len(s.received), 2)] {
		if b != 0 {
			return false
		}
	}
	return true
}

// postgresFatal returns an ErrorResponse.
func postgresFatal(code, message string) []byte {
	body := "SFATAL\x00VFATAL\x00C" + code + "\x00M" + message + "\x00\x00"
	return append(binary.BigEndian.AppendUint32([]byte{'E'}, uint32(4+len(body))), body...)
}
