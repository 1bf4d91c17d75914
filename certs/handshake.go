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
)

// A handshake is one connection's. It is the connection's session cache too,
// because a session is kept by the version it was made with.
type handshake struct {
	client     *Client
	host       string        // from HandshakeAs; empty without FromHost
	serverName string        // sent as SNI; empty, or an IP address, sends none
	verifyName string        // empty: subject alternative names are asked for
	sessions   *sessions     // nil: none is resumed
	generation uint64        // of the sessions when the handshake began
	session    *session      // to offer; nil: none
	asked      time.Time     // when the server last had the choice of every group, as far as is known
	narrowed   []tls.CurveID // the groups that are offered; nil: all that are allowed
	seen       *Observation  // nil unless this is Observe's or HandshakeAside's
	raw        net.Conn      // while Observe waits for a ticket

	version   uint16      // negotiated; 0 until the server's certificate was verified
	group     tls.CurveID // likewise
	offered   bool        // a session to resume
	unusable  bool        // that session was too old to be sent, or the handshake failed with it
	none      FullReason  // why there was no session to offer
	requested bool        // the server asked for a client certificate
	sent      bool        // and one was sent

	refused []*x509.Certificate // the server's, if verification failed
}

var errNoHost = errors.New("there is no host to take the server's name from: the request has none, or the client sent no SNI")

// handshake prepares one. The error is about host.
func (c *Client) handshake(host string) (*handshake, error) {
	h := &handshake{client: c, serverName: c.o.ServerName, verifyName: c.o.VerifyName}
	if c.o.FromHost {
		if host == "" {
			return nil, errNoHost
		}
		name, ok := hostName(host)
		if !ok {
			return nil, fmt.Errorf("the host %q is neither a DNS name nor an IP address", printable(host, 260))
		}
		h.host, h.serverName = name, name
		if h.verifyName == "" {
			h.verifyName = name
		}
	}
	if c.o.NoServerName {
		h.serverName = ""
	}
	if len(c.o.SubjectAltNames) > 0 {
		h.verifyName = ""
	}
	return h, nil
}

// resume takes a session to offer, and goes by what is known of the server by
// it: crypto/tls makes a key share for the group that it likes best, and that of
// ML-KEM is among the dearest parts of a resumption. A server that had the choice
// of it and took another group would do so again, so it is not offered what it
// passed over. One that has changed its mind is noticed, for it is asked again
// after askAgain, and at once when anything is not as it was.
func (h *handshake) resume(s *sessions) {
	h.sessions = s
	h.session, h.generation, h.none = s.take()
	now := h.client.o.Time()
	h.asked = now
	if h.session == nil || !h.session.knows(now) {
		return
	}
	if h.narrowed = groupsFrom(h.client.groups, h.session.group); h.narrowed != nil {
		h.asked = h.session.asked
	}
}

// hostName returns a host in the form that sessions are kept under. It is given
// by whoever is at the other end of a request.
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
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	return name, isHostName(name)
}

// config is made for each connection: it refers to the handshake, and so can
// never be cloned from, or leak into, another's.
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
		// crypto/tls can only verify the name that it also sends, and not at
		// all on every resumption. All checks are in VerifyConnection, which
		// runs on every connection.
		InsecureSkipVerify: true,
		VerifyConnection:   h.verify,
		// Records of full size from the start: this is a relay.
		DynamicRecordSizingDisabled: true,
	}
	if len(o.CipherSuites) == 0 {
		config.CipherSuites = nil // to crypto/tls an empty list is no suite at all
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

// run shakes hands until ctx ends. It does not give ctx to crypto/tls, which
// would close conn at the end of it and start a goroutine for each handshake.
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

// certificate is tls.Config.GetClientCertificate. What we have is sent whatever
// CAs the server names, as OpenSSL does: a server that refuses it says more
// than one that was sent none.
func (h *handshake) certificate(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	h.requested = true
	if h.seen != nil {
		h.seen.request(info, h.client.o.Certificate)
	}
	if cert := h.client.o.Certificate; cert != nil {
		h.sent = true
		return &cert.tls, nil
	}
	return new(tls.Certificate), nil
}

// verify is tls.Config.VerifyConnection.
func (h *handshake) verify(state tls.ConnectionState) error {
	h.version, h.group = state.Version, state.CurveID
	if state.Version < tls.VersionTLS13 {
		h.group = tls.X25519 // the first that there is in TLS 1.2
	}
	if h.narrowed != nil && (!state.DidResume || state.HelloRetryRequest) {
		h.asked = time.Time{}
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
	if o.Verification == VerifyInsecureSkip {
		return nil
	}
	failures := h.client.verifier.verify(state.PeerCertificates, h.verifyName)
	if h.seen != nil {
		h.seen.Failures = failures
	}
	switch {
	case len(failures) == 0:
		return nil
	case o.Verification != VerifyReportOnly:
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

// Get implements tls.ClientSessionCache. The key is of no use: all the sessions
// here are for the one endpoint and name.
func (h *handshake) Get(string) (*tls.ClientSessionState, bool) {
	if h.session == nil {
		return nil, false
	}
	h.offered = true
	return h.session.state, true
}

// Put implements tls.ClientSessionCache. For TLS 1.3 it is called by whoever
// reads from the connection, when a ticket arrives.
func (h *handshake) Put(_ string, cs *tls.ClientSessionState) {
	switch {
	case h.seen != nil:
		h.ticketSeen()
	case cs == nil:
		h.unusable = true
		h.sessions.forget()
	default:
		h.sessions.put(&session{cs, h.version, h.group, h.asked}, h.generation)
	}
}

// full returns why a handshake that succeeded was full, or nothing if it was
// not.
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
	case h.none == "":
		return FullNoTicket // crypto/tls did not ask: there is no address to go by
	}
	return h.none
}

// reason classifies err with what only this handshake knows.
func (h *handshake) reason(err error) Reason {
	if timedOut(err) {
		return ReasonHandshakeTimeout
	}
	if alert, ok := remoteAlert(err); ok {
		switch {
		case alert == alertHandshakeFailure && h.requested && !h.sent,
			isCertificateAlert(alert) && h.requested && !h.sent:
			// TLS 1.2 has no alert for it, so each library sends its own.
			return ReasonClientCertificateRequired
		case alert == alertHandshakeFailure && h.sent:
			return ReasonClientCertificateRejected
		case alert == alertHandshakeFailure && h.client.groupsAreToBlame():
			return ReasonNoCommonGroup
		}
	}
	if errors.Is(err, context.Canceled) {
		return ReasonOther // it was us who gave up
	}
	return Classify(err)
}

// groupsAreToBlame reports whether a server that found nothing in common most
// likely missed a group rather than a cipher suite: the suites of TLS 1.3 are
// the same everywhere, and suites that were not chosen are the usual ones.
func (c *Client) groupsAreToBlame() bool {
	return c.o.MinVersion == tls.VersionTLS13 || len(c.o.Groups) > 0 && len(c.o.CipherSuites) == 0
}
