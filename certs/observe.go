package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

const (
	maxObserved   = 20                     // certificates of a chain
	maxCAs        = 100                    // names of acceptable CAs
	observeLinger = 200 * time.Millisecond // added to the duration of the handshake
)

// An Observation is the record of a handshake, up to its end or its failure.
type Observation struct {
	// Conn is the connection, which the caller must close; nil on failure. It is
	// for inspection only: the first byte from the server may be lost.
	Conn *tls.Conn
	// Chain holds the certificates that the server presented, leaf first, at most
	// 20. It is empty if the server presented none that could be parsed.
	Chain []*x509.Certificate
	// ServerName is the SNI that was sent, or empty.
	ServerName string
	// VerifyNames are the names to verify. The certificate must match at least
	// one. They are in the form of ParseSANs if SubjectAltNames are set. May be
	// empty under VerifyInsecureSkip.
	VerifyNames []string
	// State is the connection's state, or zero on failure.
	State tls.ConnectionState
	// Elapsed is the duration of the handshake, successful or not.
	Elapsed time.Duration
	// Failures lists every check that the server's certificate failed, including
	// those that VerifyReportOnly ignores. They are neither passed to
	// ClientOptions.Report nor counted.
	Failures []*VerifyError
	// Requested reports whether the server requested a client certificate, Sent
	// whether one was sent.
	Requested, Sent bool
	// AcceptableCAs are the CAs that the server named in its request, as
	// distinguished names, bounded and escaped; at most 100.
	AcceptableCAs []string
	// MoreAcceptableCAs is the number of further CAs.
	MoreAcceptableCAs int
	// Acceptable reports whether the server named the issuer of our certificate,
	// among all CAs it named. It is false if we have no certificate.
	Acceptable bool
	// TicketOffered reports whether the server sent a session ticket. With
	// NoSessionReuse the client requests none.
	TicketOffered bool
	// certRequest is the server's CertificateRequest, or nil.
	certRequest *tls.CertificateRequestInfo
	// Alert is an error read after the handshake, when TLS 1.3 servers report on
	// the client's certificate. A clean close is not an Alert.
	Alert error
}

// Observe makes a full handshake with exactly the Client's settings, like
// HandshakeAs, and returns a record of it. On failure it also returns the error
// of HandshakeAs. It neither uses nor keeps sessions and counts nothing. Under
// TLS 1.3 it then waits for a ticket or an alert, for the duration of the
// handshake plus 200ms or until ctx ends.
func (c *Client) Observe(ctx context.Context, conn net.Conn, host string) (*Observation, error) {
	seen := new(Observation)
	h, err := c.handshake(host)
	if err != nil {
		return seen, &HandshakeError{Reason: ReasonLocalConfig, Err: err}
	}
	h.seen = seen
	h.observe(c)
	tc := tls.Client(conn, h.config())
	start := time.Now()
	err = h.run(ctx, conn, tc)
	seen.Elapsed = time.Since(start)
	seen.Requested, seen.Sent = h.requested, h.sent
	if err != nil {
		return seen, &HandshakeError{Reason: h.reason(err), Err: err}
	}
	seen.Conn, seen.State = tc, tc.ConnectionState()
	if seen.State.Version == tls.VersionTLS13 {
		h.linger(ctx, conn, tc, seen.Elapsed+observeLinger)
	}
	return seen, nil
}

// HandshakeOnce is HandshakeAs for a connection that carries no traffic. It
// makes a full handshake with exactly the Client's settings, neither uses nor
// keeps sessions, and counts nothing. It does not report the failures that
// VerifyReportOnly ignores.
func (c *Client) HandshakeOnce(ctx context.Context, conn net.Conn, host string) (*tls.Conn, error) {
	h, err := c.handshake(host)
	if err != nil {
		return nil, &HandshakeError{Reason: ReasonLocalConfig, Err: err}
	}
	h.seen = new(Observation)
	config := h.config()
	if c.o.RenegotiateOnce {
		config.Renegotiation = tls.RenegotiateOnceAsClient
	}
	tc := tls.Client(conn, config)
	if err := h.run(ctx, conn, tc); err != nil {
		return nil, &HandshakeError{Reason: h.reason(err), Err: err, Refused: h.refused[:min(len(h.refused), maxRefused)]}
	}
	return tc, nil
}

// observe records the names.
func (h *handshake) observe(c *Client) {
	if net.ParseIP(h.serverName) == nil {
		h.seen.ServerName = h.serverName
	}
	r := c.verifier.Requirements()
	for _, s := range r.sans {
		h.seen.VerifyNames = append(h.seen.VerifyNames, s.String())
	}
	if name := r.nameOr(h.name); name != "" && len(r.sans) == 0 {
		h.seen.VerifyNames = append(h.seen.VerifyNames, name)
	}
}

// linger reads the messages after the handshake: tickets and alerts.
func (h *handshake) linger(ctx context.Context, conn net.Conn, tc *tls.Conn, period time.Duration) {
	conn.SetReadDeadline(time.Now().Add(period))
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		conn.SetReadDeadline(time.Unix(1, 0))
	})
	h.raw = conn
	_, err := tc.Read(make([]byte, 1))
	h.raw = nil
	if !stop() {
		<-interrupted
	}
	conn.SetReadDeadline(time.Time{})
	if err != nil && err != io.EOF && !errors.Is(err, os.ErrDeadlineExceeded) {
		h.seen.Alert = &HandshakeError{Reason: h.reason(err), Err: err}
	}
}

// ticketSeen is called when a ticket arrives. During linger it ends the wait.
func (h *handshake) ticketSeen() {
	h.seen.TicketOffered = true
	if h.raw != nil {
		h.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

func (o *Observation) present(chain []*x509.Certificate) {
	o.Chain = slices.Clone(chain[:min(len(chain), maxObserved)])
}

// request records the server's request. ours is our certificate, or nil.
func (o *Observation) request(info *tls.CertificateRequestInfo, ours *Certificate) {
	o.certRequest = info
	shown := min(len(info.AcceptableCAs), maxCAs)
	for _, raw := range info.AcceptableCAs[:shown] {
		o.AcceptableCAs = append(o.AcceptableCAs, caName(raw))
	}
	o.MoreAcceptableCAs = len(info.AcceptableCAs) - shown
	if ours == nil {
		return
	}
	issuers := make(map[string]bool)
	for _, c := range ours.Chain() {
		issuers[string(c.RawIssuer)] = true
	}
	o.Acceptable = slices.ContainsFunc(info.AcceptableCAs, func(raw []byte) bool { return issuers[string(raw)] })
}

// caName returns a distinguished name that a server sent, which may be
// malformed.
func caName(raw []byte) string {
	var rdns pkix.RDNSequence
	var name pkix.Name
	if len(raw) <= 32<<10 {
		if rest, err := asn1.Unmarshal(raw, &rdns); err != nil || len(rest) > 0 {
			return "(not a distinguished name)"
		}
		name.FillFromRDNSequence(&rdns)
	}
	return safetext.Printable(nameText(raw, name), maxText)
}
