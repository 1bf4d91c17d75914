package l4

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// logDetails holds facts that only the access log needs. Without an access log a
// conn has none.
type logDetails struct {
	handshake, firstByte time.Duration
	serverName           string
	client, upstream     *accesslog.TLS
	identity             certs.Identity
	trace                upstream.Trace
}

// handshakeDone records the client's handshake.
func (n *logDetails) handshakeDone(tc *tls.Conn, took time.Duration) {
	state := tc.ConnectionState()
	n.handshake, n.client = took, accesslog.Describe(&state)
	if len(state.PeerCertificates) > 0 {
		n.identity = certs.Identify(state.PeerCertificates[0])
	}
}

// connected records the TLS state of the upstream connection.
func (n *logDetails) connected(back net.Conn) {
	if tc, ok := back.(*tls.Conn); ok {
		state := tc.ConnectionState()
		n.upstream = accesslog.Describe(&state)
	}
}

// record writes the connection to the access log, unless the current table excludes its
// listener.
func (c *conn) record(took time.Duration) {
	s, o, n := c.server, &c.outcome, c.details
	if t := s.table(); t != nil && t.NoAccessLog {
		return
	}
	remote := c.client.RemoteAddr()
	source := c.Announced.Source
	if source == nil {
		source = remote
	}
	r := accesslog.Record{
		Kind: accesslog.Connection, Start: c.start, Duration: took, Listener: s.listener,
		Ended: string(o.how), Reason: string(o.reason),
		Route: o.route, Upstream: o.upstream, Attempts: n.trace.Dials,
		FromClient: o.toUpstream, ToClient: o.toClient,
		Handshake: n.handshake, Queued: n.trace.Queued, Connect: n.trace.Connect, UpstreamHandshake: n.trace.Handshake, FirstByte: n.firstByte,
		ServerName: n.serverName, TLS: n.client, UpstreamTLS: n.upstream, Certificate: n.identity,
	}
	r.SetClient(source, remote)
	switch {
	case c.endpoint != nil:
		r.Endpoint = c.endpoint.Address()
		if c.endpoint != n.trace.Endpoint { // an earlier dial created the connection
			r.Reused = true
			r.Attempts++
		}
	case n.trace.Endpoint != nil:
		r.Endpoint = n.trace.Endpoint.Address()
	}
	s.accessLog.Log(&r)
}
