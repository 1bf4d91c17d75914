package egress

import (
	"context"
	"errors"
	"net"
	"strings"

	"golang.org/x/net/proxy"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// dialSOCKS connects through a SOCKS5 proxy.
func (p *Proxy) dialSOCKS(ctx context.Context, address string) (net.Conn, error) {
	var auth *proxy.Auth
	if p.hasCredentials() {
		auth = &proxy.Auth{User: p.Username, Password: p.Password}
	}
	dialer := &socksDialer{proxy: p}
	socks, err := proxy.SOCKS5("tcp", p.Address, auth, dialer)
	if err != nil {
		return nil, p.failed(certs.ReasonLocalConfig, err, "cannot be used")
	}
	if _, err := socks.(proxy.ContextDialer).DialContext(ctx, "tcp", address); err != nil {
		return nil, dialer.explain(ctx, address, err)
	}
	return dialer.raw, nil // the connection of package socks hides the kernel socket
}

// A socksDialer connects to the proxy for package proxy, and records how far that
// gets.
type socksDialer struct {
	proxy     *Proxy
	raw       net.Conn
	requested bool // the request for the server was sent
}

// Dial implements proxy.Dialer. Package proxy calls DialContext instead.
func (d *socksDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext implements proxy.ContextDialer.
func (d *socksDialer) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	raw, err := d.proxy.reach(ctx)
	if err != nil {
		return nil, err
	}
	d.raw = raw
	return socksConn{raw, d}, nil
}

// A socksConn observes the messages that package proxy sends.
type socksConn struct {
	net.Conn
	dialer *socksDialer
}

// Write implements net.Conn.
func (c socksConn) Write(b []byte) (int, error) {
	const version, connect = 5, 1
	if len(b) > 4 && b[0] == version && b[1] == connect { // a greeting is shorter
		c.dialer.requested = true
	}
	return c.Conn.Write(b)
}

// socksReplies maps the error texts of package socks to their meaning, because the
// package has no types for these errors.
var socksReplies = []struct {
	text   string
	reason certs.Reason
	what   string
}{
	{"connection not allowed by ruleset", certs.ReasonEgressProxyRefused, "refuses the server"},
	{"no acceptable authentication methods", certs.ReasonEgressProxyRefused, "demands other credentials"},
	{"username/password authentication failed", certs.ReasonEgressProxyRefused, "rejects the credentials"},
	{"invalid username/password", certs.ReasonLocalConfig, "does not support credentials of this length"},
	{"connection refused", certs.ReasonConnectRefused, "could not connect to the server"},
	{"TTL expired", certs.ReasonConnectTimeout, "could not connect to the server"},
	{"network unreachable", certs.ReasonUnreachable, "could not connect to the server"},
	{"host unreachable", certs.ReasonUnreachable, "could not connect to the server"},
	{"general SOCKS server failure", certs.ReasonUnreachable, "could not connect to the server"},
}

// explain returns the typed error of an attempt.
func (d *socksDialer) explain(ctx context.Context, address string, err error) error {
	if e, ok := errors.AsType[*certs.VerifyError](err); ok {
		return e // the error of reach
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "socks connect" {
		err = op.Err // the error without addresses, which are known
	}
	switch {
	case ended(ctx, err) && d.requested:
		return d.proxy.failed(certs.ReasonConnectTimeout, err, "did not answer the request for %s", address)
	case ended(ctx, err):
		return d.proxy.failed(certs.ReasonEgressProxyFailed, err, "did not answer")
	}
	for _, r := range socksReplies {
		if strings.Contains(err.Error(), r.text) {
			return d.proxy.failed(r.reason, nil, "%s: it answered the request for %s with %q", r.what, address, r.text)
		}
	}
	return d.proxy.failed(certs.ReasonEgressProxyFailed, err, "failed the request for %s", address)
}
