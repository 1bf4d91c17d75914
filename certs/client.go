package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"
)

// Verification says what is done with the certificate a server presents.
type Verification int

// The zero Verification is VerifyFull.
const (
	// VerifyFull checks chain, validity, key usage, depth and name.
	VerifyFull Verification = iota
	// VerifyReportOnly checks the same, reports what fails, and goes on.
	VerifyReportOnly
	// VerifyInsecureSkip checks nothing: anybody on the path can be the
	// server.
	VerifyInsecureSkip
)

// ClientOptions configures a Client. Every zero field is useful, except that
// there must be a name to verify.
type ClientOptions struct {
	// Certificate is presented to a server that asks for one. Nil presents
	// none.
	Certificate *Certificate
	// Trust is what the server's chain may lead to. Empty means the
	// system's roots, which are then read by each NewClient: whoever makes
	// many Clients had better name one SystemTrustBundle.
	Trust []*TrustBundle
	// Verification is what is done with the server's certificate.
	Verification Verification
	// VerifyDepth is how many intermediates a chain may have between leaf
	// and trust anchor, as OpenSSL counts. Nil means no limit.
	VerifyDepth *uint32
	// ServerName is sent as SNI. Empty, or an IP address, sends none.
	ServerName string
	// VerifyName is the DNS name or IP address that the certificate must be
	// for. Empty means ServerName.
	VerifyName string
	// MinVersion and MaxVersion are of crypto/tls. Zero means 1.2 and 1.3.
	MinVersion, MaxVersion uint16
	// CipherSuites are for TLS 1.2 and below. Empty means Go's secure list.
	CipherSuites []uint16
	// Groups are the key-exchange groups. Empty means Go's list.
	Groups []tls.CurveID
	// NextProtos are offered by ALPN, best first.
	NextProtos []string
	// NoSessionReuse makes every handshake a full one.
	NoSessionReuse bool
	// RequireALPN refuses a server that selects none of NextProtos. It means
	// nothing if there are none.
	RequireALPN bool
	// Report is called under VerifyReportOnly for each check that failed,
	// from the goroutine that shakes hands. It may be nil.
	Report func(*VerifyError)
	// Time returns the time that certificates and sessions are checked
	// against. Nil means time.Now.
	Time func() time.Time
}

// A Client does TLS to one endpoint of one revision of an upstream. It keeps
// its own sessions, which no other Client ever sees. It is safe for concurrent
// use, and needs no closing.
type Client struct {
	o        ClientOptions
	verifier verifier
	sessions sessions
}

// NewClient checks the options. The error is Faults with the fields of the API:
// verify_name, trust_bundles, min_version, alpn and the like.
func NewClient(o ClientOptions) (*Client, error) {
	var bad Faults
	o.MinVersion, o.MaxVersion = checkVersions(&bad, o.MinVersion, o.MaxVersion)
	checkNextProtos(&bad, o.NextProtos)
	if o.VerifyName == "" {
		o.VerifyName = o.ServerName
	}
	if o.Verification < VerifyFull || o.Verification > VerifyInsecureSkip {
		bad.add("verification", "is of no known kind")
	}
	if o.VerifyName == "" && o.Verification != VerifyInsecureSkip {
		bad.add("verify_name", "there is no name to verify: set it, or server_name")
	}
	if o.Time == nil {
		o.Time = time.Now
	}
	c := &Client{o: o}
	if o.Verification != VerifyInsecureSkip {
		c.verifier = verifier{
			roots: clientRoots(&bad, o.Trust),
			usage: x509.ExtKeyUsageServerAuth,
			depth: o.VerifyDepth,
			name:  o.VerifyName,
			now:   o.Time,
		}
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	return c, nil
}

func clientRoots(bad *Faults, trust []*TrustBundle) *x509.CertPool {
	if len(trust) == 0 {
		system, err := SystemTrustBundle()
		if err != nil {
			bad.add("trust_bundles", "none is named, and %v", err)
			return nil
		}
		trust = []*TrustBundle{system}
	}
	return checkTrust(bad, "trust_bundles", trust)
}

// checkTrust returns the pool of trust, which may not be empty: a nil or empty
// bundle is never taken for "anybody".
func checkTrust(bad *Faults, field string, trust []*TrustBundle) *x509.CertPool {
	for i, b := range trust {
		if b == nil || b.Count() == 0 {
			bad.add(fmt.Sprintf("%s[%d]", field, i), "holds no certificate")
			return nil
		}
	}
	return pool(trust)
}

// checkVersions fills in the defaults and refuses what cannot work.
func checkVersions(bad *Faults, lowest, highest uint16) (uint16, uint16) {
	if lowest == 0 {
		lowest = tls.VersionTLS12
		if highest != 0 {
			lowest = min(lowest, highest)
		}
	}
	if highest == 0 {
		highest = tls.VersionTLS13
	}
	known := func(v uint16) bool { return v >= tls.VersionTLS10 && v <= tls.VersionTLS13 }
	if !known(lowest) {
		bad.add("min_version", "is no version of TLS from 1.0 to 1.3")
	}
	if !known(highest) {
		bad.add("max_version", "is no version of TLS from 1.0 to 1.3")
	}
	if known(lowest) && known(highest) && lowest > highest {
		bad.add("min_version", "%s is above max_version, %s", tls.VersionName(lowest), tls.VersionName(highest))
	}
	return lowest, highest
}

// checkNextProtos applies the bounds of RFC 7301, section 3.1.
func checkNextProtos(bad *Faults, protos []string) {
	total := 0
	for i, p := range protos {
		if len(p) == 0 || len(p) > 255 {
			bad.add(fmt.Sprintf("alpn[%d]", i), "has %d bytes: want 1 to 255", len(p))
		}
		total += 1 + len(p)
	}
	if total > 1<<16-1 {
		bad.add("alpn", "is longer than a ClientHello can hold")
	}
}

// Handshake shakes hands over conn and returns the TLS connection on it. It
// ends when ctx does. On error, which is a *HandshakeError, conn is still the
// caller's to close, and of no further use. Until it returns Handshake owns
// conn's deadlines; it leaves none set.
func (c *Client) Handshake(ctx context.Context, conn net.Conn) (*tls.Conn, error) {
	h := &handshake{client: c}
	tc := tls.Client(conn, h.config())
	if err := h.run(ctx, conn, tc); err != nil {
		if h.offered && !timedOut(err) && !errors.Is(err, context.Canceled) {
			// Either what was resumed does not pass today's checks, or the
			// server chokes on what it does not know. No other session would
			// do better: the next handshake is full, and sees what the
			// server presents now.
			c.sessions.drop()
		}
		return nil, &HandshakeError{Reason: h.reason(err), Err: err}
	}
	return tc, nil
}

// A handshake is one connection's. It is the connection's session cache too,
// because a session is kept by the version it was made with.
type handshake struct {
	client *Client

	version   uint16 // negotiated; 0 until the server's certificate was verified
	offered   bool   // a session to resume
	requested bool   // the server asked for a client certificate
	sent      bool   // and one was sent
}

// config is made for each connection: it refers to the handshake, and so can
// never be cloned from, or leak into, another's.
func (h *handshake) config() *tls.Config {
	o := &h.client.o
	config := &tls.Config{
		ServerName:           o.ServerName,
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
func (h *handshake) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	h.requested = true
	if cert := h.client.o.Certificate; cert != nil {
		h.sent = true
		return &cert.tls, nil
	}
	return new(tls.Certificate), nil
}

// verify is tls.Config.VerifyConnection.
func (h *handshake) verify(state tls.ConnectionState) error {
	h.version = state.Version
	o := &h.client.o
	if o.RequireALPN && len(o.NextProtos) > 0 && state.NegotiatedProtocol == "" {
		return &VerifyError{
			Reason: ReasonALPNMismatch,
			Detail: "the server selected none of the protocols offered by ALPN: " + nameList(o.NextProtos),
		}
	}
	if o.Verification == VerifyInsecureSkip {
		return nil
	}
	failures := h.client.verifier.verify(state.PeerCertificates)
	if len(failures) == 0 {
		return nil
	}
	if o.Verification != VerifyReportOnly {
		return failures[0]
	}
	if o.Report != nil {
		for _, f := range failures {
			o.Report(f)
		}
	}
	return nil
}

// Get implements tls.ClientSessionCache. The key is of no use: all the sessions
// here are for the one endpoint.
func (h *handshake) Get(string) (*tls.ClientSessionState, bool) {
	cs := h.client.sessions.take()
	h.offered = cs != nil
	return cs, h.offered
}

// Put implements tls.ClientSessionCache. For TLS 1.3 it is called by whoever
// reads from the connection, when a ticket arrives.
func (h *handshake) Put(_ string, cs *tls.ClientSessionState) {
	if cs == nil { // a session that was offered turned out to be unusable
		h.client.sessions.forget()
		return
	}
	h.client.sessions.put(cs, h.version)
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
