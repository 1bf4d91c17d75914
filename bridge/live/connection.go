package live

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// An Entry is one open connection. Its methods may be called concurrently, even after the
// connection has ended.
type Entry interface {
	// ID returns the number of the connection.
	ID() uint64

	// Describe sets *c to the current facts about the connection.
	Describe(c *Connection)

	// Close makes the connection accept no further work, and ends it within the grace
	// period; 0: at once.
	Close(grace time.Duration)
}

// A Protocol is the protocol that a connection carries.
type Protocol int

// The zero Protocol is TCP.
const (
	TCP Protocol = iota
	HTTP1
	HTTP2
	Tunnel // an upgraded HTTP/1.1 connection
)

// A State is the phase of a connection.
type State int

// The zero State is Handshaking.
const (
	Handshaking State = iota // handshake with the client, including the PROXY protocol header
	Connecting               // dialing an upstream, including the TLS handshake
	Active                   // a stream, or requests in progress
	Idle                     // no request is in progress
)

// A Connection describes an open connection at one moment.
type Connection struct {
	ID       uint64
	Began    time.Time
	Revision int64 // the live revision when the connection began; 0: unknown
	Protocol Protocol
	State    State
	Draining bool // the connection accepts no further work
	Requests int  // requests in progress

	Listener string // "": a connection to an upstream that does not belong to a single client
	Upgrade  string // the protocol of a Tunnel

	// Route, Upstream and Endpoint belong to the stream or, for a client's HTTP
	// connection, to its latest request. "": not chosen yet.
	Route, Upstream, Endpoint string

	Address netip.Addr // the client's address; invalid if it has none

	// Client is the client's side. It is zero without a Listener. Server is the
	// endpoint's side. It is zero for a client's HTTP connection, because its requests
	// use pooled connections.
	Client, Server Side
}

// A Side is one side of a connection. The zero Side does not exist.
type Side struct {
	Local, Remote net.Addr // addresses of the gateway's socket
	Announced     net.Addr // the client address in the PROXY protocol header; nil without one
	TLS           *TLS     // nil: plaintext, passed through, or in the handshake
	Certificate   string   // SHA-256 fingerprint of the certificate that the gateway presented as a client; "": none

	Traffic      socket.Traffic
	TrafficKnown bool
}

// TLS is the result of the handshake on a side.
type TLS struct {
	Version    uint16
	Suite      uint16
	Group      tls.CurveID
	ALPN       string
	ServerName string // the SNI
	Resumed    bool
	Peer       *x509.Certificate // the certificate that the peer presented, or nil
}

// SideOf describes an established connection: a *socket.Socket, or a *tls.Conn over one
// whose handshake is complete.
func SideOf(conn net.Conn) Side {
	sock := socket.Of(conn)
	if sock == nil {
		return Side{}
	}
	s := Side{Local: sock.LocalAddr(), Remote: sock.RemoteAddr()}
	s.Traffic, s.TrafficKnown = socket.TrafficOf(sock)
	if tc, ok := conn.(*tls.Conn); ok {
		s.TLS = describeTLS(tc)
	}
	return s
}

func describeTLS(tc *tls.Conn) *TLS {
	state := tc.ConnectionState()
	t := &TLS{
		Version: state.Version, Suite: state.CipherSuite, Group: state.CurveID,
		ALPN: state.NegotiatedProtocol, ServerName: state.ServerName, Resumed: state.DidResume,
	}
	if len(state.PeerCertificates) > 0 {
		t.Peer = state.PeerCertificates[0]
	}
	return t
}

// Exists reports whether the connection has the side.
func (s *Side) Exists() bool { return s.Local != nil }

// Leaf returns the certificate that the peer presented, or nil.
func (s *Side) Leaf() *x509.Certificate {
	if s.TLS == nil {
		return nil
	}
	return s.TLS.Peer
}

// IdleTime returns the time since a byte last moved on either side. It is unknown if the
// traffic of both sides is unknown.
func (c *Connection) IdleTime() (idle time.Duration, known bool) {
	for _, s := range []*Side{&c.Client, &c.Server} {
		if s.TrafficKnown && (!known || s.Traffic.Idle < idle) {
			idle, known = s.Traffic.Idle, true
		}
	}
	return idle, known
}
