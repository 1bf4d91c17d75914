package egress

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// maxHeader bounds the head of the proxy's answer.
const maxHeader = 16 << 10

var (
	errHeaderTooLong = errors.New("its response has more than 16384 bytes")
	errNotHTTP       = errors.New("its response is not HTTP")
)

// dialHTTP connects through an HTTP proxy.
func (p *Proxy) dialHTTP(ctx context.Context, address string) (net.Conn, error) {
	raw, err := p.reach(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := p.connect(ctx, raw, address)
	if err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// connect requests a tunnel from the proxy at raw. The caller closes raw if connect
// fails.
func (p *Proxy) connect(ctx context.Context, raw net.Conn, address string) (net.Conn, error) {
	conn := raw
	if p.TLS != nil {
		tc, err := p.TLS.Handshake(ctx, raw)
		if err != nil {
			return nil, p.failed(certs.ReasonEgressProxyFailed, err, "does not complete the TLS handshake")
		}
		conn = tc
	}
	var status string
	err := socket.Within(ctx, conn, func() (err error) {
		if _, err = io.WriteString(conn, p.request(address)); err == nil {
			status, err = readStatus(conn)
		}
		return err
	})
	switch {
	case ended(ctx, err):
		return nil, p.failed(certs.ReasonConnectTimeout, err, "did not answer CONNECT %s", address)
	case err != nil:
		return nil, p.failed(certs.ReasonEgressProxyFailed, err, "did not answer CONNECT %s", address)
	}
	if err := p.checkStatus(status, address); err != nil {
		return nil, err
	}
	if conn == raw {
		return raw, nil
	}
	return p.relayed(conn)
}

func (p *Proxy) request(address string) string {
	var b strings.Builder
	b.WriteString("CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\n")
	if p.hasCredentials() {
		b.WriteString("Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(p.Username+":"+p.Password)) + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// checkStatus returns an error unless the status means that the tunnel exists.
func (p *Proxy) checkStatus(status, address string) error {
	code, _ := strconv.Atoi(status[:3])
	switch {
	case code >= 200 && code < 300:
		return nil
	case (code == 407 || code == 401) && p.hasCredentials(): // tinyproxy sends 401
		return p.failed(certs.ReasonEgressProxyRefused, nil, "rejects the credentials: it answered CONNECT %s with %s", address, quote(status))
	case code == 407, code == 401:
		return p.failed(certs.ReasonEgressProxyRefused, nil, "demands credentials: it answered CONNECT %s with %s", address, quote(status))
	case code == 504:
		return p.failed(certs.ReasonConnectTimeout, nil, "could not connect to the server in time: it answered CONNECT %s with %s", address, quote(status))
	case code >= 500:
		return p.failed(certs.ReasonUnreachable, nil, "could not connect to the server: it answered CONNECT %s with %s", address, quote(status))
	}
	return p.failed(certs.ReasonEgressProxyRefused, nil, "refuses the server: it answered CONNECT %s with %s", address, quote(status))
}

// readStatus reads the head of the proxy's final answer, and returns its status: the
// code and the reason phrase.
func readStatus(conn io.Reader) (string, error) {
	left := maxHeader
	for {
		head, err := readHead(conn, &left)
		if err != nil {
			return "", err
		}
		line, _, _ := strings.Cut(string(head), "\n")
		version, status, _ := strings.Cut(strings.TrimRight(line, "\r"), " ")
		status = strings.TrimLeft(status, " ")
		if !strings.HasPrefix(version, "HTTP/1.") || len(status) < 3 || strings.Trim(status[:3], "0123456789") != "" {
			return "", errNotHTTP
		}
		if status[0] != '1' {
			return status, nil
		}
	}
}

// readHead reads exactly to the end of a head, because the following bytes may already
// come from the server, which speaks first in some protocols. So a read requests only
// the minimum number of bytes that the head still lacks.
func readHead(conn io.Reader, left *int) ([]byte, error) {
	var head []byte
	for {
		n := missing(head)
		if n == 0 {
			return head, nil
		}
		if *left -= n; *left < 0 {
			return nil, errHeaderTooLong
		}
		head = append(head, make([]byte, n)...)
		if _, err := io.ReadFull(conn, head[len(head)-n:]); err != nil {
			return nil, err
		}
		if len(head) >= 5 && !bytes.HasPrefix(head, []byte("HTTP/")) {
			return nil, errNotHTTP
		}
	}
}

// missing returns the minimum number of bytes that can complete a head. Lines end with
// CR LF, or with LF alone as some proxies write them.
func missing(head []byte) int {
	switch {
	case bytes.HasSuffix(head, []byte("\n\r\n")), bytes.HasSuffix(head, []byte("\n\n")):
		return 0
	case bytes.HasSuffix(head, []byte("\n\r")), bytes.HasSuffix(head, []byte("\n")):
		return 1
	}
	return 2
}
