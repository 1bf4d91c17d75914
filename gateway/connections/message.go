package connections

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

var protocols = map[live.Protocol]adminv1.ConnectionProtocol{
	live.TCP:    adminv1.ConnectionProtocol_CONNECTION_PROTOCOL_TCP,
	live.HTTP1:  adminv1.ConnectionProtocol_CONNECTION_PROTOCOL_HTTP_1,
	live.HTTP2:  adminv1.ConnectionProtocol_CONNECTION_PROTOCOL_HTTP_2,
	live.Tunnel: adminv1.ConnectionProtocol_CONNECTION_PROTOCOL_TUNNEL,
}

var states = map[live.State]adminv1.ConnectionPhase{
	live.Handshaking: adminv1.ConnectionPhase_CONNECTION_PHASE_HANDSHAKE,
	live.Connecting:  adminv1.ConnectionPhase_CONNECTION_PHASE_CONNECTING,
	live.Active:      adminv1.ConnectionPhase_CONNECTION_PHASE_ACTIVE,
	live.Idle:        adminv1.ConnectionPhase_CONNECTION_PHASE_IDLE,
}

// message returns the API's form of a connection.
func message(c *live.Connection, now time.Time, names *names) *adminv1.Connection {
	m := &adminv1.Connection{
		Id: strconv.FormatUint(c.ID, numberBase), Protocol: protocols[c.Protocol], State: states[c.State], Draining: c.Draining,
		Listener: c.Listener, Route: c.Route, Upstream: c.Upstream, Endpoint: c.Endpoint, Upgrade: printable(c.Upgrade),
		RequestsInFlight: int32(c.Requests), Revision: c.Revision,
		StartTime: timestamppb.New(c.Began), Age: durationpb.New(max(now.Sub(c.Began), 0)),
	}
	if c.Client.Exists() {
		m.Client = side(&c.Client, names)
	}
	if c.Server.Exists() {
		m.Server = side(&c.Server, names)
	}
	if idle, known := c.IdleTime(); known {
		m.IdleDuration = durationpb.New(idle)
	}
	return m
}

func side(s *live.Side, names *names) *adminv1.ConnectionSide {
	m := &adminv1.ConnectionSide{LocalAddress: address(s.Local), RemoteAddress: address(s.Remote), AnnouncedAddress: address(s.Announced)}
	if s.TrafficKnown {
		received, sent := int64(s.Traffic.Received), int64(s.Traffic.Sent)
		m.BytesReceived, m.BytesSent = &received, &sent
	}
	if t := s.TLS; t != nil {
		m.Tls = &adminv1.ConnectionTls{
			Version: snapshot.TLSVersion(t.Version), CipherSuite: names.suite(t.Suite), Alpn: t.ALPN,
			ServerName: printable(t.ServerName), Resumed: t.Resumed, OwnSha256Fingerprint: s.Certificate,
		}
		if t.Group != 0 {
			m.Tls.Group = t.Group.String()
		}
		if t.Peer != nil {
			m.Tls.Peer = names.identity(t.Peer)
		}
	}
	return m
}

// address returns an address in the API's form; "" for none.
func address(a net.Addr) string {
	switch {
	case a == nil:
		return ""
	case a.Network() == "unix":
		return printable("unix:" + a.String())
	}
	return printable(a.String())
}

// maxText limits a text that a peer chose.
const maxText = 260

func printable(text string) string { return safetext.Printable(text, maxText) }

// A names caches the texts that many connections in a list share.
type names struct {
	identities map[*x509.Certificate]*adminv1.ConnectionIdentity
	suites     map[uint16]string
}

func newNames() *names {
	return &names{identities: map[*x509.Certificate]*adminv1.ConnectionIdentity{}, suites: map[uint16]string{}}
}

// suite returns the name of a cipher suite.
func (n *names) suite(id uint16) string {
	name, known := n.suites[id]
	if !known {
		name = tls.CipherSuiteName(id)
		n.suites[id] = name
	}
	return name
}

// maxNames limits the subject alternative names in an identity.
const maxNames = 100

// identity returns the names in a certificate.
func (n *names) identity(leaf *x509.Certificate) *adminv1.ConnectionIdentity {
	if m := n.identities[leaf]; m != nil {
		return m
	}
	m := &adminv1.ConnectionIdentity{Sha256Fingerprint: certs.FingerprintOf(leaf), Subject: certs.SubjectOf(leaf)}
	for _, san := range certs.SANsOf(leaf) {
		if len(m.SubjectAltNames) == maxNames {
			break
		}
		m.SubjectAltNames = append(m.SubjectAltNames, printable(san.String()))
	}
	n.identities[leaf] = m
	return m
}
