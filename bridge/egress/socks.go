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
	way := &socksWay{proxy: p}
	dialer, err := proxy.SOCKS5("tcp", p.Address, auth, way)
	if err != nil {
		return nil, p.failed(certs.ReasonLocalConfig, err, "cannot be used")
	}
	if _, err := dialer.(proxy.ContextDialer).DialContext(ctx, "tcp", address); err != nil {
		return nil, way.explain(ctx, address, err)
	}
	return way.raw, nil // the connection of package socks hides the kernel socket
}

// A socksWay connects to the proxy for package proxy, and observes how far it gets.
type socksWay struct {
	proxy *Proxy
	raw   net.Conn
	asked bool // for the server
}

// Dial implements proxy.Dialer. Package proxy calls DialContext instead.
func (w *socksWay) Dial(network, address string) (net.Conn, error) {
	return w.DialContext(context.Background(), network, address)
}

// DialContext implements proxy.ContextDialer.
func (w *socksWay) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	raw, err := w.proxy.reach(ctx)
	if err != nil {
		return nil, err
	}
	w.raw = raw
	return socksConn{raw, w}, nil
}

// A socksConn observes what package proxy sends.
type socksConn struct {
	net.Conn
	way *socksWay
}

// Write implements net.Conn.
func (c socksConn) Write(b []byte) (int, error) {
	const version, connect = 5, 1
	if len(b) > 4 && b[0] == version && b[1] == connect { // a greeting is shorter
		c.way.asked = true
	}
	return c.Conn.Write(b)
}

// socksReplies are the texts of package socks about the proxy's answer, and what they
// mean. They have no type.
var socksReplies = []struct {
	text   string
	reason certs.Reason
	what   string
}{
	{"connection not allowed by ruleset", certs.ReasonEgressProxyRefused, "refuses the server"},
	{"no acceptable authentication methods", certs.ReasonEgressProxyRefused, "demands other credentials"},
	{"username/password authentication failed", certs.ReasonEgressProxyRefused, "rejects the credentials"},
	{"invalid username/password", certs.ReasonLocalConfig, "cannot be given these credentials"},
	{"connection refused", certs.ReasonConnectRefused, "could not connect to the server"},
	{"TTL expired", certs.ReasonConnectTimeout, "could not connect to the server"},
	{"network unreachable", certs.ReasonUnreachable, "could not connect to the server"},
	{"host unreachable", certs.ReasonUnreachable, "could not connect to the server"},
	{"general SOCKS server failure", certs.ReasonUnreachable, "could not connect to the server"},
}

// explain returns the typed error of an attempt.
func (w *socksWay) explain(ctx context.Context, address string, err error) error {
	if e, ok := errors.AsType[*certs.VerifyError](err); ok {
		return e // of reach
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "socks connect" {
		err = op.Err // its addresses are known
	}
	switch {
	case ended(ctx, err) && w.asked:
		return w.proxy.failed(certs.ReasonConnectTimeout, err, "did not answer the request for %s", address)
	case ended(ctx, err):
		return w.proxy.failed(certs.ReasonEgressProxyFailed, err, "did not answer")
	}
	for _, r := range socksReplies {
		if strings.Contains(err.Error(), r.text) {
			return w.proxy.failed(r.reason, nil, "%s: it answered the request for %s with %q", r.what, address, r.text)
		}
	}
	return w.proxy.failed(certs.ReasonEgressProxyFailed, err, "failed the request for %s", address)
}
