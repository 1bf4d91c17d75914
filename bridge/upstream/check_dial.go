package upstream

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// Connections of health checks have the same settings as traffic, but are not
// counted, use no sessions and ignore limits. The error of each method is a
// *DialError.

// CheckConnect connects to the endpoint. With the PROXY protocol it announces
// the gateway's own addresses. The caller closes the connection.
func (d *dialer) CheckConnect(ctx context.Context) (net.Conn, error) {
	begin := time.Now()
	bounded, cancel := context.WithTimeout(ctx, d.upstream.options.ConnectTimeout)
	defer cancel()
	raw, err := d.reach(bounded)
	if err != nil {
		return nil, d.failure(d.options.Network, time.Since(begin), err)
	}
	sock := socket.New(raw, nil)
	if err := d.announce(ctx, sock); err != nil {
		sock.Close()
		return nil, d.failure(d.options.Network, time.Since(begin), err)
	}
	return sock, nil
}

// CheckHandshake checks that the endpoint completes a handshake with the TLS
// settings of a purpose, which must exist. Host is as in DialAs. A TLS 1.3
// server verifies our certificate after the handshake, so CheckHandshake waits
// for its reply: about 200ms, unless a ticket arrives.
func (d *dialer) CheckHandshake(ctx context.Context, p Purpose, host string) error {
	conn, err := d.CheckConnect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	client, begin := d.options.client(p), time.Now()
	bounded, cancel := context.WithTimeout(ctx, d.upstream.options.HandshakeTimeout)
	defer cancel()
	protocol := d.upstream.options.Starttls
	if err := protocol.Upgrade(bounded, conn); err != nil {
		return d.failure("tls", time.Since(begin), err)
	}
	seen, err := client.Observe(bounded, conn, host)
	if len(seen.Chain) > 0 {
		d.present(seen.Chain)
	}
	if seen.Conn != nil {
		defer seen.Conn.Close()
	}
	if err == nil {
		err = seen.Alert
	}
	if err != nil {
		return d.failure("tls", time.Since(begin), protocol.Explain(err))
	}
	return nil
}

// CheckDial connects to the endpoint and, unless it is plaintext, completes
// the TLS handshake with the settings of a purpose. Host and the connection
// are as in DialAs. The caller closes the *tls.Conn or *socket.Socket.
func (d *dialer) CheckDial(ctx context.Context, p Purpose, host string) (net.Conn, error) {
	conn, err := d.CheckConnect(ctx)
	client := d.options.client(p)
	if err != nil || client == nil {
		return conn, err
	}
	begin := time.Now()
	bounded, cancel := context.WithTimeout(ctx, d.upstream.options.HandshakeTimeout)
	defer cancel()
	protocol := d.upstream.options.Starttls
	if err := protocol.Upgrade(bounded, conn); err != nil {
		conn.Close()
		return nil, d.failure("tls", time.Since(begin), err)
	}
	tc, err := client.HandshakeOnce(bounded, conn, host)
	if err = protocol.Explain(err); err != nil {
		conn.Close()
		d.presentRefused(err)
		return nil, d.failure("tls", time.Since(begin), err)
	}
	socket.Of(conn).ReadBeforeReset()
	d.present(tc.ConnectionState().PeerCertificates)
	return tc, nil
}

// present records the certificates that the endpoint presented.
func (d *dialer) present(chain []*x509.Certificate) { d.counts.presented.Store(&chain) }

// presentRefused records the certificates that a failed handshake refused, if any.
func (d *dialer) presentRefused(err error) {
	if he, ok := errors.AsType[*certs.HandshakeError](err); ok && len(he.Refused) > 0 {
		d.present(he.Refused)
	}
}

// CheckName returns the name that the endpoint's certificate must match with
// the settings of a purpose; "" if the name depends on the connection or is not
// checked.
func (d *dialer) CheckName(p Purpose) string {
	client := d.options.client(p)
	if client == nil {
		return ""
	}
	o := client.Options()
	return cmp.Or(o.VerifyName, o.ServerName)
}
