package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A health check's connections are made as traffic's are, with the same
// settings, but are not traffic: they are not counted, use no sessions, and no
// limit holds them up. The error of each method is a *DialError.

// CheckConnect connects to the endpoint, and announces the connection as the
// gateway's own where connections are announced. The caller closes it.
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

// CheckHandshake sees whether the endpoint shakes hands with the TLS settings of
// a purpose, which it must have. Host is as DialAs has it. With TLS 1.3 a server
// judges our certificate after the handshake, so its word on that is waited for:
// for a fifth of a second or so, where it gives no ticket.
func (d *dialer) CheckHandshake(ctx context.Context, p Purpose, host string) error {
	conn, err := d.CheckConnect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	client, begin := d.options.client(p), time.Now()
	bounded, cancel := context.WithTimeout(ctx, d.upstream.options.HandshakeTimeout)
	defer cancel()
	seen, err := client.Observe(bounded, conn, host)
	if len(seen.Chain) > 0 {
		d.counts.presented.Store(&seen.Chain)
	}
	if seen.Conn != nil {
		defer seen.Conn.Close()
	}
	if err == nil {
		err = seen.Alert
	}
	if err != nil {
		return d.failure("tls", time.Since(begin), err)
	}
	return nil
}

// CheckDial connects to the endpoint and, unless it is plaintext, completes the
// TLS handshake with the settings of a purpose. Host is as DialAs has it. The
// connection is as DialAs's: a *tls.Conn or a *socket.Socket, which the caller
// closes.
func (d *dialer) CheckDial(ctx context.Context, p Purpose, host string) (net.Conn, error) {
	conn, err := d.CheckConnect(ctx)
	client := d.options.client(p)
	if err != nil || client == nil {
		return conn, err
	}
	begin := time.Now()
	bounded, cancel := context.WithTimeout(ctx, d.upstream.options.HandshakeTimeout)
	defer cancel()
	tc, err := client.HandshakeAside(bounded, conn, host)
	if err != nil {
		conn.Close()
		if he, ok := errors.AsType[*certs.HandshakeError](err); ok && len(he.Refused) > 0 {
			d.counts.presented.Store(&he.Refused)
		}
		return nil, d.failure("tls", time.Since(begin), err)
	}
	socket.Of(conn).HearFirst()
	d.present(tc)
	return tc, nil
}

// present notes what certificate the endpoint has presented.
func (d *dialer) present(conn *tls.Conn) {
	chain := conn.ConnectionState().PeerCertificates // a pointer into the state would keep all of it
	d.counts.presented.Store(&chain)
}

// CheckName returns the name that the endpoint's certificate must be for with the
// settings of a purpose; "" if that comes with each connection, or there is no
// such name.
func (d *dialer) CheckName(p Purpose) string {
	client := d.options.client(p)
	if client == nil {
		return ""
	}
	o := client.Options()
	return cmp.Or(o.VerifyName, o.ServerName)
}
