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
)

const (
	maxObserved   = 20                     // certificates of a chain
	maxCAs        = 100                    // names of acceptable CAs
	observeLinger = 200 * time.Millisecond // beyond a handshake's time again
)

// An Observation is what Observe saw of a handshake, as far as it went.
type Observation struct {
	// Conn is the connection, which is the caller's to close; nil on failure.
	// It is there to be looked at: the first byte of what the server says may
	// be gone.
	Conn *tls.Conn
	// Chain is what the server presented, the leaf first; at most 20. It is
	// empty if the server presented nothing that could be parsed.
	Chain []*x509.Certificate
	// ServerName was sent as SNI; empty if none was.
	ServerName string
	// VerifyNames are the names one of which the certificate had to have, in
	// the form of ParseSANs if SubjectAltNames are set. Under
	// VerifyInsecureSkip there may be none.
	VerifyNames []string
	// State is that of the connection, or zero on failure.
	State tls.ConnectionState
	// Elapsed is how long the handshake took, whatever came of it.
	Elapsed time.Duration
	// Failures is every check of ours that the server's certificate failed,
	// also what VerifyReportOnly lets through. They are not told to
	// ClientOptions.Report, nor counted.
	Failures []*VerifyError
	// Requested is whether the server asked for a client certificate, Sent
	// whether one was sent.
	Requested, Sent bool
	// AcceptableCAs are the CAs whose certificates the server asked for, as
	// distinguished names, bounded and escaped; at most 100.
	AcceptableCAs []string
	// MoreAcceptableCAs is how many it named beyond those.
	MoreAcceptableCAs int
	// Acceptable reports whether the server named the issuer of a certificate
	// of ours, among all that it named. It is false if we have none.
	Acceptable bool
	// TicketOffered is whether the server gave a session ticket. None is
	// asked for with NoSessionReuse.
	TicketOffered bool
	// Alert is an error read after the handshake: under TLS 1.3 that is when
	// a server says what it thinks of the client's certificate. An orderly end
	// is none.
	Alert error
}

// Observe makes a full handshake with exactly the Client's settings, as
// HandshakeAs would, and says what it saw: on failure too, when the error is
// that of HandshakeAs. It neither takes nor keeps sessions and counts nothing.
// Under TLS 1.3 it then waits for a ticket or an alert: for the time that the
// handshake took and 200ms more, or until ctx ends.
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

// HandshakeAside is HandshakeAs for a connection that is not traffic: it makes a
// full handshake with exactly the Client's settings, neither takes nor keeps
// sessions and counts nothing. What VerifyReportOnly lets through is not told.
func (c *Client) HandshakeAside(ctx context.Context, conn net.Conn, host string) (*tls.Conn, error) {
	h, err := c.handshake(host)
	if err != nil {
		return nil, &HandshakeError{Reason: ReasonLocalConfig, Err: err}
	}
	h.seen = new(Observation)
	tc := tls.Client(conn, h.config())
	if err := h.run(ctx, conn, tc); err != nil {
		return nil, &HandshakeError{Reason: h.reason(err), Err: err, Refused: h.refused[:min(len(h.refused), maxRefused)]}
	}
	return tc, nil
}

// observe notes the names.
func (h *handshake) observe(c *Client) {
	if net.ParseIP(h.serverName) == nil {
		h.seen.ServerName = h.serverName
	}
	for _, s := range c.verifier.sans {
		h.seen.VerifyNames = append(h.seen.VerifyNames, s.String())
	}
	if h.verifyName != "" {
		h.seen.VerifyNames = append(h.seen.VerifyNames, h.verifyName)
	}
}

// linger reads what comes after the handshake: tickets and alerts.
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

// ticketSeen is called when a ticket arrives; while lingering that is by
// tls.Conn.Read, which then has nothing more to wait for.
func (h *handshake) ticketSeen() {
	h.seen.TicketOffered = true
	if h.raw != nil {
		h.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

func (o *Observation) present(chain []*x509.Certificate) {
	o.Chain = slices.Clone(chain[:min(len(chain), maxObserved)])
}

// request notes what the server asked for. ours is nil without a certificate.
func (o *Observation) request(info *tls.CertificateRequestInfo, ours *Certificate) {
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
// anything.
func caName(raw []byte) string {
	var rdns pkix.RDNSequence
	var name pkix.Name
	if len(raw) <= 32<<10 {
		if rest, err := asn1.Unmarshal(raw, &rdns); err != nil || len(rest) > 0 {
			return "(not a distinguished name)"
		}
		name.FillFromRDNSequence(&rdns)
	}
	return printable(nameText(raw, name), maxText)
}
