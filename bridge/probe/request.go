package probe

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A Request is an HTTP request without a body.
type Request struct{ Method, Path string }

func (r *Request) String() string { return r.Method + " " + escape(r.Path) }

// maxRequest bounds a Request's path.
const maxRequest = 2000

// ParseRequest parses "GET /path". It accepts only methods without side
// effects.
func ParseRequest(text string) (*Request, error) {
	method, path, _ := strings.Cut(text, " ")
	switch {
	case method != "GET" && method != "HEAD" && method != "OPTIONS":
		return nil, errors.New("must be GET, HEAD or OPTIONS, a space and a path")
	case !strings.HasPrefix(path, "/"):
		return nil, errors.New("must have a path that begins with /")
	case len(path) > maxRequest:
		return nil, fmt.Errorf("has a path of %d bytes: at most %d are sent", len(path), maxRequest)
	case strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, errors.New("must have a path of printable ASCII without spaces: percent-encode anything else")
	}
	return &Request{method, path}, nil
}

// A requestTrial sends a request to the endpoint of a trial that succeeded.
type requestTrial struct{ *trial }

// An answer is the result of a Request.
type answer struct {
	status       int
	body         []byte // the beginning of the body
	renegotiated bool
	err          error
}

// maxAnswer bounds the bytes read of a response.
const maxAnswer = 64 << 10

// ask sends the request by HTTP/1.1 on a separate connection. The first
// connection cannot carry it, because the wait for a late alert may have read a
// byte.
func (t requestTrial) ask(ctx context.Context, r *Request) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, t.timeouts.handshake)
	defer cancel()
	conn, done, err := t.target.open(ctx, t.timeouts)
	if err != nil {
		return answer{err: err}
	}
	defer done()
	if t.target.Client != nil {
		tc, err := t.handshakeForHTTP1(ctx, conn)
		if err != nil {
			return answer{err: err}
		}
		before := bytes.Clone(tc.ConnectionState().TLSUnique)
		defer func() {
			// The value belongs to the latest handshake; TLS 1.3 has none.
			a.renegotiated = !bytes.Equal(before, tc.ConnectionState().TLSUnique)
		}()
		conn = tc
	}
	host, _, _ := net.SplitHostPort(t.target.Address)
	req := &http.Request{Method: r.Method}
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: drawbridge-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n",
		r.Method, r.Path, cmp.Or(t.target.Host, t.options.ServerName, host, "localhost")); err != nil {
		return answer{err: err}
	}
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), req)
	if err != nil {
		return answer{err: err}
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10)) // the status has arrived, which is enough
	return answer{status: response.StatusCode, body: body}
}

func (t requestTrial) handshakeForHTTP1(ctx context.Context, raw net.Conn) (*tls.Conn, error) {
	o := t.options
	if len(o.NextProtos) > 0 {
		o.NextProtos, o.RequireALPN = []string{"http/1.1"}, false
	}
	client, err := certs.NewClient(o)
	if err != nil {
		return nil, err
	}
	return client.HandshakeOnce(ctx, raw, t.target.Host)
}

// reasonOf returns why the answer is a failure, or "". Servers that require a
// client certificate only at the HTTP level answer with special statuses: nginx
// sends 400 with a text, or 495 and 496 with error_page.
func (t requestTrial) reasonOf(a answer) certs.Reason {
	if a.err == nil {
		has := func(text string) bool { return bytes.Contains(a.body, []byte(text)) }
		switch {
		case a.status == 496 || has("No required SSL certificate was sent"):
			return certs.ReasonClientCertificateRequired
		case a.status == 495 || has("The SSL certificate error"):
			return certs.ReasonClientCertificateRejected
		}
		return ""
	}
	switch reason := certs.Classify(a.err); reason {
	case certs.ReasonNoCommonCipher: // alert 40 in a second handshake
		if t.options.Certificate == nil {
			return certs.ReasonClientCertificateRequired
		}
		return certs.ReasonClientCertificateRejected
	case certs.ReasonPeerClosed, certs.ReasonOther, certs.ReasonNotTLS:
		return certs.ReasonResponseBroken
	case certs.ReasonHandshakeTimeout, certs.ReasonConnectTimeout:
		return certs.ReasonResponseTimeout
	default:
		return reason
	}
}

// explainAnswer adds the result of a request to the diagnosis of the handshake.
func (t requestTrial) explainAnswer(d diagnosis, r *Request, a answer) (certs.Reason, diagnosis) {
	reason := t.reasonOf(a)
	if a.renegotiated {
		d.facts += fmt.Sprintf("; after the request %s it requested TLS renegotiation, and the second handshake succeeded", r)
	}
	answered := fmt.Sprintf("; it answered %s with %d", r, a.status)
	if text := http.StatusText(a.status); text != "" {
		answered += " (" + text + ")"
	}
	switch reason {
	case "":
		d.facts += answered
		return "", d
	case certs.ReasonRenegotiationRequested:
		d.facts += fmt.Sprintf("; after the request %s it requested TLS renegotiation", r)
		if t.options.RenegotiateOnce {
			d.facts += " more than once on a connection"
			return reason, d.advise("have the upstream request its client certificate in the first handshake")
		}
		d.facts += ", which tls.renegotiation does not allow"
		s := setTo("tls.renegotiation", "RENEGOTIATION_ONCE")
		if len(t.options.NextProtos) != 1 || t.options.NextProtos[0] != "http/1.1" {
			s = s.and(" and http.protocol to HTTP_PROTOCOL_1_1")
		}
		if t.options.Certificate == nil {
			s = s.and("; if it requires a client certificate then, set tls.certificate too")
		}
		return reason, d.suggest(s)
	case certs.ReasonClientCertificateRequired, certs.ReasonClientCertificateRejected:
		if a.err != nil {
			answered = fmt.Sprintf("; after the request %s it rejected the connection (%s)", r, certs.ErrorText(a.err))
		}
		explanation := "it requires a client certificate, and we sent none"
		if reason == certs.ReasonClientCertificateRejected {
			explanation = "it does not accept our client certificate"
		}
		d.facts += answered + ": " + explanation
		return reason, t.adviseCertificate(d, "")
	}
	d.facts += fmt.Sprintf("; the request %s failed: %s", r, certs.ErrorText(a.err))
	return reason, d.advise("check the upstream's log for this request")
}
