package admin

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
)

// A tcpConn is a connection of a TCPListener.
type tcpConn struct {
	*tls.Conn
	listener *TCPListener
	accepted *identity                           // the settings when the connection was accepted
	peer     atomic.Pointer[tls.ConnectionState] // nil before the handshake has completed
}

func (l *TCPListener) track(raw net.Conn) *tcpConn {
	now := l.identity.Load()
	c := &tcpConn{Conn: now.server.Conn(raw), listener: l, accepted: now}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = struct{}{}
	return c
}

// Close implements net.Conn.
func (c *tcpConn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// handshake completes the handshake within the connection's deadline. The current
// settings then decide whether the caller is admitted. They may have changed since the
// connection was accepted.
func (c *tcpConn) handshake() (tls.ConnectionState, error) {
	if err := c.HandshakeContext(context.Background()); err != nil {
		return tls.ConnectionState{}, err
	}
	state := c.ConnectionState()
	c.peer.Store(&state)
	// The peer is stored first, so that Revalidate after a later reload sees it.
	if now := c.listener.identity.Load(); now != c.accepted {
		return state, now.server.Admits(state)
	}
	return state, nil
}

// Revalidate ends each connection whose client would no longer be admitted: because its
// certificate was revoked or has expired, its CA is no longer trusted, or its names are
// no longer allowed. It calls ended for each.
func (l *TCPListener) Revalidate(ended func(client, subject string, cause error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.identity.Load()
	for c := range l.conns {
		state := c.peer.Load()
		if state == nil {
			continue // the handshake has not completed: when it does, handshake checks the new settings
		}
		if cause := now.server.Admits(*state); cause != nil {
			ended(c.RemoteAddr().String(), callerName(*state), cause)
			// Not c.Close, which would wait for the client to read an alert. gRPC closes c
			// after its next read.
			c.NetConn().Close()
		}
	}
}

// callerName returns the subject of a caller's certificate, for the log.
func callerName(state tls.ConnectionState) string {
	return "cert:" + sanitize(state.PeerCertificates[0].Subject.String(), maxField)
}
