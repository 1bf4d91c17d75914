package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

// A handshake is the state of one connection's handshake. It is also the
// connection's session cache, because sessions are stored by the negotiated
// version.
type handshake struct {
	client     *Client
	host       string        // from HandshakeAs; empty without FromHost
	serverName string        // sent as SNI unless it is empty or an IP address
	name       string        // the server's name, for Requirements without a name; may be empty
	sessions   *sessions     // nil: no resumption
	generation uint64        // the generation of sessions when the handshake began
	session    *session      // the session to offer, or nil
	chosenAt   time.Time     // when the server last chose from all groups; zero if unknown
	narrowed   []tls.CurveID // groups to offer; nil: all allowed groups
	seen       *Observation  // nil unless Observe or HandshakeOnce runs it
	raw        net.Conn      // set while Observe waits for a ticket

	version   uint16      // the negotiated version; 0 until the server's certificate was verified
	group     tls.CurveID // the negotiated group; 0 until then
	offered   bool        // a session was offered
	unusable  bool        // the session was too old to send, or the handshake failed with it
	noSession FullReason  // why no session was offered
	requested bool        // the server asked for a client certificate
	sent      bool        // a client certificate was sent

	refused []*x509.Certificate // the server's chain, if verification failed
	peer    *Peer               // nil until the server's certificate was accepted
}

var errNoHost = errors.New("there is no host to take the server's name from: the request has none, or the client sent no SNI")

// handshake prepares a handshake. An error means that host is missing or
// invalid.
func (c *Client) handshake(host string) (*handshake, error) {
	h := &handshake{client: c, serverName: c.o.ServerName, name: c.o.ServerName}
	if c.o.FromHost {
		if host == "" {
			return nil, errNoHost
		}
		name, ok := hostName(host)
		if !ok {
			return nil, fmt.Errorf("the host %q is neither a DNS name nor an IP address", safetext.Printable(host, 260))
		}
		h.host, h.serverName, h.name = name, name, name
	}
	if c.o.NoServerName {
		h.serverName = ""
	}
	return h, nil
}

// resume takes a session to offer and narrows the groups to the one that the server
// chose before. crypto/tls makes a key share for its favorite group, and ML-KEM is
// one of the most expensive parts of a resumption. A server that passed over an
// offered group will probably do so again, so that group is not offered. To detect
// a server that has changed, all groups are offered again after offerLifetime, and
// at once after any mismatch.
func (h *handshake) resume(s *sessions) {
	h.sessions = s
	h.session, h.generation, h.noSession = s.take()
	now := h.client.o.Time()
	h.chosenAt = now
	if h.session == nil || !h.session.knows(now) {
		return
	}
	if h.narrowed = groupsFrom(h.client.groups, h.session.group); h.narrowed != nil {
		h.chosenAt = h.session.chosenAt
	}
}

// hostName returns a host in the form of the keys of sessions. Clients choose
// the host of a request, so it may be invalid.
func hostName(host string) (string, bool) {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		host, ok = strings.CutSuffix(inner, "]")
		if !ok || !strings.Contains(host, ":") {
			return "", false
		}
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String(), ip.Zone() == ""
	}
	name := normalName(host)
	return name, isHostName(name)
}

// config makes a tls.Config for one connection. It refers to the handshake, so
// it is never cloned or shared.
func (h *handshake) config() *tls.Config {
	o := &h.client.o
	config := &tls.Config{
		ServerName:           h.serverName,
		MinVersion:           o.MinVersion,
		MaxVersion:           o.MaxVersion,
		CipherSuites:         o.CipherSuites,
		CurvePreferences:     o.Groups,
		NextProtos:           o.NextProtos,
		GetClientCertificate: h.certificate,
		Time:                 o.Time,
		// crypto/tls can verify only the name that it also sends, and does not verify
		// on every resumption. VerifyConnection runs on every connection and does all
		// checks.
		InsecureSkipVerify: true,
		VerifyConnection:   h.verify,
		// Small first records help browsers to render early, but slow down a relay.
		DynamicRecordSizingDisabled: true,
	}
	if len(o.CipherSuites) == 0 {
		config.CipherSuites = nil // an empty list would mean no suites at all
	}
	if o.NoSessionReuse {
		config.SessionTicketsDisabled = true
	} else {
		config.ClientSessionCache = h
	}
	if h.narrowed != nil {
		config.CurvePreferences = h.narrowed
	}
	return config
}

// run runs the handshake until ctx ends. It does not pass ctx to crypto/tls,
// which would close conn when ctx ends and start a goroutine for each
// handshake.
func (h *handshake) run(ctx context.Context, conn net.Conn, tc *tls.Conn) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		conn.SetDeadline(time.Unix(1, 0))
	})
	err := tc.Handshake()
	if !stop() {
		<-interrupted
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// certificate implements tls.Config.GetClientCertificate. It sends our
// certificate whatever CAs the server names, as OpenSSL does: a server that
// rejects a certificate explains more than a server that received none. It
// fails if the server cannot verify our key's signatures: without a certificate
// the gateway would silently be unauthenticated.
func (h *handshake) certificate(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	h.requested = true
	if h.seen != nil {
		h.seen.request(info, h.client.o.Certificate)
	}
	if cert := h.client.o.Certificate; cert != nil {
		if err := checkKeyType(info, cert); err != nil {
			return nil, err
		}
		h.sent = true
		return &cert.tls, nil
	}
	return new(tls.Certificate), nil
}

// verify implements tls.Config.VerifyConnection.
func (h *handshake) verify(state tls.ConnectionState) error {
	h.version, h.group = state.Version, state.CurveID
	if state.Version < tls.VersionTLS13 {
		h.group = tls.X25519 // crypto/tls prefers it under TLS 1.2
	}
	if h.narrowed != nil && (!state.DidResume || state.HelloRetryRequest) {
		h.chosenAt = time.Time{}
	}
	o := &h.client.o
	if h.seen != nil {
		h.seen.present(state.PeerCertificates)
	}
	if o.RequireALPN && len(o.NextProtos) > 0 && state.NegotiatedProtocol == "" {
		return &VerifyError{
			Reason: ReasonALPNMismatch,
			Detail: "the server selected none of the protocols offered by ALPN: " + nameList(o.NextProtos),
		}
	}
	r := h.client.verifier.Requirements()
	var failures []*VerifyError
	if r.mode != VerifyInsecureSkip {
		var anchor *x509.Certificate
		anchor, failures = r.accept(state.PeerCertificates, r.nameOr(h.name))
		h.client.anchors.Note(anchor, o.Time())
	}
	if h.seen != nil {
		h.seen.Failures = failures
	}
	h.peer = r.peer(state.PeerCertificates, h.name, o.Certificate, o.Time())
	switch {
	case len(failures) == 0:
		return nil
	case r.mode != VerifyReportOnly:
		h.peer = nil
		h.refused = state.PeerCertificates
		return failures[0]
	case h.seen != nil:
		return nil
	}
	h.client.counters.report(failures)
	if o.Report != nil {
		for _, f := range failures {
			o.Report(f)
		}
	}
	return nil
}

// Get implements tls.ClientSessionCache. It ignores the key: all sessions here
// are for one endpoint and name.
func (h *handshake) Get(string) (*tls.ClientSessionState, bool) {
	if h.session == nil {
		return nil, false
	}
	h.offered = true
	return h.session.state, true
}

// Put implements tls.ClientSessionCache. Under TLS 1.3 the goroutine that
// reads from the connection calls it when a ticket arrives.
func (h *handshake) Put(_ string, cs *tls.ClientSessionState) {
	switch {
	case h.seen != nil:
		h.ticketSeen()
	case cs == nil:
		h.unusable = true
		h.sessions.forgetOld()
	default:
		h.sessions.put(&session{state: cs, version: h.version, group: h.group, chosenAt: h.chosenAt}, h.generation)
	}
}

// full returns why a successful handshake was full, or "" if it resumed.
func (h *handshake) full(resumed bool) FullReason {
	switch {
	case resumed:
		return ""
	case h.sessions == nil:
		return FullReuseOff
	case h.unusable:
		return FullExpired
	case h.offered:
		return FullRefused
	case h.noSession == "":
		return FullNoTicket // crypto/tls did not look up a session, because it has no address as a key
	}
	return h.noSession
}

// reason classifies err with the state of this handshake.
func (h *handshake) reason(err error) Reason {
	if timedOut(err) {
		return ReasonHandshakeTimeout
	}
	if alert, ok := remoteAlert(err); ok {
		switch {
		case alert == alertHandshakeFailure && h.requested && !h.sent,
			isCertificateAlert(alert) && h.requested && !h.sent:
			// TLS 1.2 has no alert for this, so libraries send various ones.
			return ReasonClientCertificateRequired
		case alert == alertHandshakeFailure && h.sent:
			return ReasonClientCertificateRejected
		case alert == alertHandshakeFailure && h.client.lacksCommonGroup():
			return ReasonNoCommonGroup
		}
	}
	if errors.Is(err, context.Canceled) {
		return ReasonOther // we ended the handshake
	}
	return Classify(err)
}

// lacksCommonGroup reports whether a server that found no common parameters
// probably lacked a group rather than a cipher suite. TLS 1.3 suites are the
// same everywhere, and the default suites are common.
func (c *Client) lacksCommonGroup() bool {
	return c.o.MinVersion == tls.VersionTLS13 || len(c.o.Groups) > 0 && len(c.o.CipherSuites) == 0
}
