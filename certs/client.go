package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// Verification selects the checks of the server's certificate.
type Verification int

// The zero Verification is VerifyFull.
const (
	// VerifyFull checks chain, validity, key usage, depth and name.
	VerifyFull Verification = iota
	// VerifyReportOnly runs the same checks, reports failures and continues.
	VerifyReportOnly
	// VerifyInsecureSkip checks nothing: anyone on the path can impersonate the
	// server.
	VerifyInsecureSkip
)

// ClientOptions configures a Client. The zero value of every field is valid,
// except that a name to verify is required.
type ClientOptions struct {
	// Certificate is presented to a server that requests one. Nil presents no
	// certificate.
	Certificate *Certificate
	// Trust is the set of trust anchors. Empty means the system's roots.
	// Each NewClient then reads them again, so a caller with many Clients
	// should share one SystemTrustBundle.
	Trust []*TrustBundle
	// Verification selects the checks of the server's certificate.
	Verification Verification
	// VerifyDepth is the maximum number of intermediates between leaf and trust
	// anchor, as OpenSSL counts them. Nil means no limit.
	VerifyDepth *uint32
	// ServerName is sent as SNI. No SNI is sent if it is empty or an IP address.
	ServerName string
	// NoServerName suppresses SNI even if ServerName is set. The certificate is
	// still verified.
	NoServerName bool
	// FromHost takes the name from the host of each handshake instead of
	// ServerName: see HandshakeAs.
	FromHost bool
	// VerifyName is the DNS name or IP address that the certificate must be valid
	// for. Empty means ServerName, or the handshake's host.
	VerifyName string
	// SubjectAltNames are exact names; the certificate must have at least one of
	// them. If set, they replace VerifyName.
	SubjectAltNames []SAN
	// Pins are SHA-256 digests of public keys. The verified chain must contain at
	// least one, in addition to all other checks. Empty means any key.
	Pins [][32]byte
	// MinVersion and MaxVersion are crypto/tls constants. Zero means 1.2 and 1.3.
	MinVersion, MaxVersion uint16
	// CipherSuites are for TLS 1.2 and below. Empty means Go's secure list.
	CipherSuites []uint16
	// Groups are the key-exchange groups. Empty means Go's list.
	Groups []tls.CurveID
	// NextProtos are offered by ALPN, most preferred first.
	NextProtos []string
	// NoSessionReuse disables resumption: every handshake is full.
	NoSessionReuse bool
	// Replaces is the old Client, after a change of certificate or other settings.
	// The new Client continues its AnchorLog. If the old Client had sessions, the
	// new one counts handshakes until its first ticket as CREDENTIALS_CHANGED. The
	// new Client keeps no reference to the old one. May be nil.
	Replaces *Client
	// RenegotiateOnce lets a TLS 1.2 server renegotiate once on each connection,
	// usually to request a client certificate after it has seen a request. False
	// rejects it. The checks of the server's certificate run again.
	RenegotiateOnce bool
	// RequireALPN rejects a server that selects none of NextProtos. It has no
	// effect if NextProtos is empty.
	RequireALPN bool
	// Verifier decides about the server's certificate instead of Trust,
	// Verification, VerifyDepth, VerifyName, SubjectAltNames and Pins. Its
	// Requirements may be replaced at any time; the Client keeps its sessions and
	// counters. Nil means a Verifier with these options.
	Verifier *Verifier
	// Report is called under VerifyReportOnly for each failed check, from the
	// goroutine that runs the handshake. May be nil.
	Report func(*VerifyError)
	// Time returns the current time for certificates and sessions. Nil means
	// time.Now.
	Time func() time.Time
}

// A Client makes TLS connections to one endpoint of one revision of an
// upstream. It keeps its own sessions and shares them with no other Client. It
// is safe for concurrent use and needs no Close.
type Client struct {
	o        ClientOptions
	given    ClientOptions // the options as passed, without defaults
	verifier *Verifier
	groups   []tls.CurveID // allowed groups, in the order of inOrder
	hosts    *hosts
	counters counters
	anchors  *AnchorLog // records the anchors of servers; never nil
}

// NewClient checks the options. The error is Faults with the fields of the API:
// verify_name, trust_bundles, min_version, alpn and the like.
func NewClient(o ClientOptions) (*Client, error) {
	var bad Faults
	c := &Client{given: o, hosts: newHosts(o.Replaces), verifier: o.Verifier, anchors: new(AnchorLog)}
	if o.Replaces != nil {
		c.anchors = o.Replaces.anchors
	}
	c.given.Replaces, c.given.Verifier = nil, nil
	o.Replaces = nil
	o.MinVersion, o.MaxVersion = checkVersions(&bad, o.MinVersion, o.MaxVersion)
	checkNextProtos(&bad, o.NextProtos)
	if o.FromHost && o.NoServerName {
		bad.add("server_name_source", "cannot both take the name from the host and send no name")
	}
	if c.verifier == nil {
		c.verifier = NewVerifier(newRequirements(&bad, &o))
	}
	if !c.verifier.Requirements().named() && o.ServerName == "" && !o.FromHost {
		bad.add("verify_name", "there is no name to verify: set verify_name or server_name")
	}
	// A Verifier's Requirements may be replaced, so c keeps no copy of them.
	new(Requirements).fill(&o)
	new(Requirements).fill(&c.given)
	if o.Time == nil {
		o.Time = time.Now
	}
	c.o = o
	c.groups = inOrder(o.Groups)
	if err := bad.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// clientTrust returns trust, or the system's roots if trust is empty.
func clientTrust(bad *Faults, trust []*TrustBundle) []*TrustBundle {
	if len(trust) > 0 {
		return trust
	}
	system, err := SystemTrustBundle()
	if err != nil {
		bad.add("trust_bundles", "is empty, and %v", err)
		return nil
	}
	return []*TrustBundle{system}
}

// With returns a Client with the same settings that verifies against r. It
// shares neither sessions nor counters nor the AnchorLog with c.
func (c *Client) With(r *Requirements) *Client {
	return &Client{o: c.o, given: c.given, groups: c.groups, hosts: newHosts(nil), verifier: NewVerifier(r), anchors: new(AnchorLog)}
}

// Options returns the options of the Client, with the Requirements in force, so
// that a caller can make a similar Client. Trust holds the system's roots if it
// was empty; Verifier and Replaces are nil.
func (c *Client) Options() ClientOptions {
	o := c.given
	c.verifier.Requirements().fill(&o)
	o.CipherSuites = slices.Clone(o.CipherSuites)
	o.Groups = slices.Clone(o.Groups)
	o.NextProtos = slices.Clone(o.NextProtos)
	return o
}

// Certificate returns the certificate for servers that request one, or nil.
func (c *Client) Certificate() *Certificate { return c.o.Certificate }

// Anchors returns the record of the trust anchors that verified the server. The
// record outlives the Client.
func (c *Client) Anchors() *AnchorLog { return c.anchors }

// SessionStats returns the counters so far. The caller owns the maps.
func (c *Client) SessionStats() SessionStats { return c.counters.snapshot() }

// Sessions returns how many sessions c holds.
func (c *Client) Sessions() int {
	n := 0
	for _, h := range c.hosts.all() {
		n += h.count()
	}
	return n
}

// Flush drops all sessions, and those that open connections receive later, so
// the next handshakes are full. It returns how many sessions it dropped.
func (c *Client) Flush() int {
	n := 0
	for _, h := range c.hosts.all() {
		n += h.flush()
	}
	return n
}

// checkTrust returns the pool of all bundles, which must not be empty: a nil
// or empty bundle never means that any peer is trusted.
func checkTrust(bad *Faults, field string, trust []*TrustBundle) *x509.CertPool {
	if len(trust) == 0 {
		return nil // already reported
	}
	for i, b := range trust {
		if b == nil || b.Count() == 0 {
			bad.add(fmt.Sprintf("%s[%d]", field, i), "holds no certificate")
			return nil
		}
	}
	return pool(trust)
}

// checkVersions fills in the defaults and rejects invalid combinations.
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
		bad.add("min_version", "is not a TLS version from 1.0 to 1.3")
	}
	if !known(highest) {
		bad.add("max_version", "is not a TLS version from 1.0 to 1.3")
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

// Handshake is HandshakeAs without a host.
func (c *Client) Handshake(ctx context.Context, conn net.Conn) (*tls.Conn, error) {
	return c.HandshakeAs(ctx, conn, "")
}

// HandshakeAs runs the handshake over conn and returns the TLS connection. It
// stops when ctx ends. The error is a *HandshakeError; the caller must then
// close conn, which is unusable. HandshakeAs owns the deadlines of conn until
// it returns, and leaves none set.
//
// With RenegotiateOnce a read may run another handshake, and may fail with the
// errors of a handshake. If conn has a method BeginWait() bool, the goroutine
// that reads calls it first. BeginWait returns true if conn's reads block from then
// on. If it returns false, the second handshake fails.
//
// With ClientOptions.FromHost, host is the DNS name or IP address of the
// server. It is sent as SNI, and the certificate must be valid for it unless
// VerifyName or SubjectAltNames is set. Without a host the handshake fails
// (LOCAL_CONFIG). Sessions of one host are not resumed for another. Without
// FromHost, host is ignored.
func (c *Client) HandshakeAs(ctx context.Context, conn net.Conn, host string) (*tls.Conn, error) {
	tc, _, err := c.HandshakePeer(ctx, conn, host)
	return tc, err
}

// HandshakePeer is HandshakeAs, but also returns a Peer, which can verify the server
// again.
func (c *Client) HandshakePeer(ctx context.Context, conn net.Conn, host string) (*tls.Conn, *Peer, error) {
	h, err := c.handshake(host)
	if err != nil {
		return nil, nil, &HandshakeError{Reason: ReasonLocalConfig, Err: err}
	}
	if !c.o.NoSessionReuse {
		h.resume(c.hosts.of(h.host))
	}
	config := h.config()
	var again *renegotiation
	if c.o.RenegotiateOnce {
		again = allowRenegotiation(config, conn)
	}
	tc := tls.Client(conn, config)
	err = h.run(ctx, conn, tc)
	h.session = nil // let the garbage collector free it: tc refers to h
	if err != nil {
		if h.offered && !timedOut(err) && !errors.Is(err, context.Canceled) {
			// Either the resumed session no longer passes the checks, or the server
			// mishandles a ticket that it does not know. Other sessions would fail too.
			// So drop them: the next handshake is full, and verifies the certificates
			// that the server presents now.
			h.sessions.drop(FullRefused)
		}
		_, alerted := remoteAlert(err)
		return nil, nil, &HandshakeError{
			Reason:  h.reason(err),
			Err:     err,
			Refused: h.refused[:min(len(h.refused), maxRefused)],
			Narrow:  h.narrowed != nil && h.version == 0 && alerted,
		}
	}
	if again != nil {
		again.established = true
	}
	c.counters.count(h.full(tc.ConnectionState().DidResume))
	return tc, h.peer, nil
}
