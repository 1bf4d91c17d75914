package connections

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
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

// A connectionBlock is a message with the messages that every connection has, in one allocation:
// a list of 10,000 connections would otherwise spend much of its time on allocations.
type connectionBlock struct {
	connection adminv1.Connection
	start      timestamppb.Timestamp
	age, idle  durationpb.Duration
}

// A sideBlock is the same for a side.
type sideBlock struct {
	side           adminv1.ConnectionSide
	tls            adminv1.ConnectionTls
	received, sent int64
}

// message returns the API's form of a connection.
func message(c *live.Connection, now time.Time, names *names) *adminv1.Connection {
	b := new(connectionBlock)
	b.start.Seconds, b.start.Nanos = c.Began.Unix(), int32(c.Began.Nanosecond())
	setDuration(&b.age, max(now.Sub(c.Began), 0))
	m := &b.connection
	m.Id, m.Protocol, m.State, m.Draining = strconv.FormatUint(c.ID, numberBase), protocols[c.Protocol], states[c.State], c.Draining
	m.Listener, m.Route, m.Upstream, m.Endpoint, m.Upgrade = c.Listener, c.Route, c.Upstream, c.Endpoint, printable(c.Upgrade)
	m.RequestsInFlight, m.Revision, m.StartTime, m.Age = int32(c.Requests), c.Revision, &b.start, &b.age
	if c.Client.Exists() {
		m.Client = side(&c.Client, names)
	}
	if c.Server.Exists() {
		m.Server = side(&c.Server, names)
	}
	if idle, known := c.IdleTime(); known {
		setDuration(&b.idle, idle)
		m.IdleDuration = &b.idle
	}
	return m
}

// setDuration does what durationpb.New does, without an allocation.
func setDuration(m *durationpb.Duration, d time.Duration) {
	m.Seconds, m.Nanos = int64(d/time.Second), int32(d%time.Second)
}

func side(s *live.Side, names *names) *adminv1.ConnectionSide {
	b := new(sideBlock)
	m := &b.side
	m.LocalAddress, m.RemoteAddress, m.AnnouncedAddress = names.local(s.Local), address(s.Remote), address(s.Announced)
	if s.TrafficKnown {
		b.received, b.sent = int64(s.Traffic.Received), int64(s.Traffic.Sent)
		m.BytesReceived, m.BytesSent = &b.received, &b.sent
	}
	if t := s.TLS; t != nil {
		m.Tls = &b.tls
		m.Tls.Version, m.Tls.CipherSuite, m.Tls.Alpn = snapshot.TLSVersion(t.Version), names.suite(t.Suite), t.ALPN
		m.Tls.ServerName, m.Tls.Resumed, m.Tls.OwnSha256Fingerprint = printable(t.ServerName), t.Resumed, s.Certificate
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
	if a == nil {
		return ""
	}
	if t, ok := a.(*net.TCPAddr); ok && t.Zone == "" && len(t.IP) > 0 {
		p := t.AddrPort() // String of an AddrPort allocates once, and String of a TCPAddr four times
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port()).String()
	}
	if a.Network() == "unix" {
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

	at     net.TCPAddr // the local address of the last side: most clients connect to the same address
	atText string
}

func newNames() *names {
	return &names{identities: map[*x509.Certificate]*adminv1.ConnectionIdentity{}, suites: map[uint16]string{}}
}

// local returns a local address in the API's form.
func (n *names) local(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return address(a)
	}
	if n.atText == "" || t.Port != n.at.Port || t.Zone != n.at.Zone || !t.IP.Equal(n.at.IP) {
		n.at, n.atText = *t, address(a)
	}
	return n.atText
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
