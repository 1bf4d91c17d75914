package health

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// maxHeader bounds the header of a response, for which net/http keeps up to 30
// bytes per received byte. maxBody bounds the part of the body that is read.
const (
	maxHeader = 32 << 10
	maxBody   = 64 << 10
)

// A request is sent over its own connection.
type request struct {
	method, path string // path may have a query
	host         string // Host, or :authority; "": the endpoint's own host
	header       http.Header
	body         string
	prior        bool // plaintext is HTTP/2 by prior knowledge
	needs2       bool // requires HTTP/2
}

// send opens a connection, sends the request and passes the response to read,
// which may read its body and then its trailer.
func (r *request) send(ctx context.Context, e *upstream.Endpoint, read func(*http.Response) error) error {
	conn, err := e.CheckDial(ctx, upstream.HTTP, cmp.Or(hostName(r.host), ownName(e)))
	if err != nil {
		return err
	}
	defer conn.Close()
	target, err := url.ParseRequestURI(r.path)
	if err != nil {
		return &certs.VerifyError{Reason: certs.ReasonLocalConfig, Detail: "the path is invalid", Err: err}
	}
	target.Scheme, target.Host = "http", r.authority(e)
	version2 := r.prior
	if tc, ok := conn.(*tls.Conn); ok {
		target.Scheme = "https"
		version2 = tc.ConnectionState().NegotiatedProtocol == "h2"
	}
	if r.needs2 && !version2 {
		return &certs.VerifyError{Reason: certs.ReasonALPNMismatch, Detail: "the endpoint did not negotiate HTTP/2 (h2 by ALPN)"}
	}
	req := (&http.Request{
		Method: r.method, URL: target, Host: target.Host, Header: r.header.Clone(), ContentLength: int64(len(r.body)),
	}).WithContext(ctx)
	if r.body != "" {
		req.Body = io.NopCloser(strings.NewReader(r.body))
	}
	if version2 {
		err = send2(conn, req, read)
	} else {
		err = send1(conn, req, read)
	}
	if err != nil {
		return broken(ctx, conn, err)
	}
	return nil
}

// authority returns the host of the request.
func (r *request) authority(e *upstream.Endpoint) string {
	name := e.CheckName(upstream.HTTP)
	switch {
	case r.host != "":
		return r.host
	case name != "" && name != ownName(e):
		return bracketed(name)
	case e.Network() == "unix":
		return "localhost" // a path is not a host
	}
	return e.Authority()
}

// hostName returns a host without its port, and without brackets.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(strings.Trim(host, "[]"), ".")
}

// bracketed returns a name in the form of an authority.
func bracketed(name string) string {
	if strings.Contains(name, ":") {
		return "[" + name + "]"
	}
	return name
}

// maxInterims bounds how many interim responses precede a final one.
const maxInterims = 10

var (
	errHeader   = errors.New("its header is too long")
	errInterims = errors.New("there are too many interim responses")
)

// send1 sends a request in HTTP/1.1. It does not use the Transport of
// net/http, which would write data that an endpoint sends too early to the
// process's log.
func send1(conn net.Conn, req *http.Request, read func(*http.Response) error) error {
	stop := context.AfterFunc(req.Context(), func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req.Close = true
	// The endpoint may have answered even if writing failed.
	written := req.Write(conn)
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	in := bufio.NewReader(limited)
	for range maxInterims {
		resp, err := http.ReadResponse(in, req)
		switch {
		case err != nil && limited.N <= 0:
			return errHeader
		case err != nil:
			return cmp.Or(written, err)
		case resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols:
			continue
		}
		defer resp.Body.Close()
		limited.N = 2 * maxBody // including the chunk headers
		return read(resp)
	}
	return errInterims
}

// send2 sends a request in HTTP/2.
func send2(conn net.Conn, req *http.Request, read func(*http.Response) error) error {
	given := make(chan net.Conn, 1)
	given <- conn
	dial := func(context.Context, string, string) (net.Conn, error) {
		select {
		case c := <-given:
			return c, nil
		default:
			return nil, errOneConnection
		}
	}
	t := &http.Transport{
		DialContext: dial, DialTLSContext: dial, Protocols: new(http.Protocols),
		DisableCompression: true, DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeader,
	}
	t.Protocols.SetHTTP2(true)
	t.Protocols.SetUnencryptedHTTP2(true)
	defer t.CloseIdleConnections()
	resp, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return read(resp)
}

// errOneConnection ends a request that net/http would otherwise retry.
var errOneConnection = errors.New("the connection was closed before it was used")

// broken returns the error for a request that was sent and failed without a
// more specific cause.
func broken(ctx context.Context, conn net.Conn, err error) error {
	var known *certs.VerifyError
	if errors.As(err, &known) {
		return err
	}
	// A TLS 1.3 server verifies the gateway's certificate after the handshake.
	// net/http may have read the alert without reporting it; reading conn returns
	// it again.
	conn.SetReadDeadline(time.Unix(1, 0))
	if _, readErr := conn.Read(make([]byte, 1)); certs.IsAlert(readErr) {
		return &certs.VerifyError{Reason: certs.Classify(readErr), Detail: certs.ErrorText(readErr), Err: readErr}
	}
	reason, detail := certs.ReasonResponseBroken, "the response is incomplete or invalid: "
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		reason, detail = certs.ReasonResponseTimeout, "the response did not arrive in time: "
	}
	return &certs.VerifyError{Reason: reason, Detail: detail + certs.ErrorText(err), Err: err}
}
