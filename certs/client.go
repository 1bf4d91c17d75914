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
	// NoServerName sends no SNI, whatever ServerName is. The certificate is
	// verified all the same.
	NoServerName bool
	// FromHost takes the name from each handshake instead of from ServerName:
	// see HandshakeAs.
	FromHost bool
	// VerifyName is the DNS name or IP address that the certificate must be
	// for. Empty means ServerName, or the handshake's host.
	VerifyName string
	// SubjectAltNames are names one of which the certificate must have, to
	// the letter. Where there are any they stand in place of VerifyName.
	SubjectAltNames []SAN
	// Pins are SHA-256 digests of public keys, one of which must be in the
	// verified chain, in addition to all else. Empty means any key.
	Pins [][32]byte
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
	// Replaces is the Client that this one stands in for after a change of
	// certificate, trust or names. Nothing is taken from it but whether it had
	// sessions, so that handshakes until the first ticket are counted as
	// CREDENTIALS_CHANGED; it is not kept. It may be nil.
	Replaces *Client
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
	given    ClientOptions // without the defaults
	verifier verifier
	groups   []tls.CurveID // that may be offered, as inOrder has them
	hosts    *hosts
	counters counters
}

// NewClient checks the options. The error is Faults with the fields of the API:
// verify_name, trust_bundles, min_version, alpn and the like.
func NewClient(o ClientOptions) (*Client, error) {
	var bad Faults
	c := &Client{given: o, hosts: newHosts(o.Replaces)}
	c.given.Replaces = nil
	o.Replaces = nil
	o.MinVersion, o.MaxVersion = checkVersions(&bad, o.MinVersion, o.MaxVersion)
	checkNextProtos(&bad, o.NextProtos)
	checkNames(&bad, &o)
	if o.Time == nil {
		o.Time = time.Now
	}
	c.o = o
	c.groups = inOrder(o.Groups)
	if o.Verification != VerifyInsecureSkip {
		trust := clientTrust(&bad, o.Trust)
		c.given.Trust = trust
		c.verifier = verifier{
			trust: trust,
			roots: checkTrust(&bad, "trust_bundles", trust),
			usage: x509.ExtKeyUsageServerAuth,
			depth: o.VerifyDepth,
			sans:  o.SubjectAltNames,
			pins:  o.Pins,
			now:   o.Time,
		}
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// checkNames sees to it that there is a name to verify.
func checkNames(bad *Faults, o *ClientOptions) {
	if o.FromHost && o.NoServerName {
		bad.add("server_name_source", "a name cannot both come from the host and not be sent")
	}
	if o.VerifyName == "" && !o.FromHost {
		o.VerifyName = o.ServerName
	}
	if o.Verification < VerifyFull || o.Verification > VerifyInsecureSkip {
		bad.add("verification", "is of no known kind")
	}
	if o.VerifyName == "" && !o.FromHost && len(o.SubjectAltNames) == 0 && o.Verification != VerifyInsecureSkip {
		bad.add("verify_name", "there is no name to verify: set it, or server_name")
	}
}

// clientTrust returns the system's roots where no trust is named.
func clientTrust(bad *Faults, trust []*TrustBundle) []*TrustBundle {
	if len(trust) > 0 {
		return trust
	}
	system, err := SystemTrustBundle()
	if err != nil {
		bad.add("trust_bundles", "none is named, and %v", err)
		return nil
	}
	return []*TrustBundle{system}
}

// Options returns the options that the Client was made with, to make another
// with one of them changed. Trust is what the system's roots were found to be
// if none was named; Replaces is nil.
func (c *Client) Options() ClientOptions {
	o := c.given
	o.Trust = slices.Clone(o.Trust)
	o.SubjectAltNames = slices.Clone(o.SubjectAltNames)
	o.Pins = slices.Clone(o.Pins)
	o.CipherSuites = slices.Clone(o.CipherSuites)
	o.Groups = slices.Clone(o.Groups)
	o.NextProtos = slices.Clone(o.NextProtos)
	return o
}

// Certificate returns what is presented to a server that asks, or nil.
func (c *Client) Certificate() *Certificate { return c.o.Certificate }

// SessionStats returns what was counted so far. The maps are the caller's.
func (c *Client) SessionStats() SessionStats { return c.counters.snapshot() }

// Flush forgets all sessions, and those too that connections made so far have
// yet to bring: the next handshakes are full. It returns how many there were.
func (c *Client) Flush() int {
	n := 0
	for _, h := range c.hosts.all() {
		n += h.flush()
	}
	return n
}

// checkTrust returns the pool of trust, which may not be empty: a nil or empty
// bundle is never taken for "anybody".
func checkTrust(bad *Faults, field string, trust []*TrustBundle) *x509.CertPool {
	if len(trust) == 0 {
		return nil // told of already
	}
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

// Handshake is HandshakeAs without a host.
func (c *Client) Handshake(ctx context.Context, conn net.Conn) (*tls.Conn, error) {
	return c.HandshakeAs(ctx, conn, "")
}

// HandshakeAs shakes hands over conn and returns the TLS connection on it. It
// ends when ctx does. On error, which is a *HandshakeError, conn is still the
// caller's to close, and of no further use. Until it returns HandshakeAs owns
// conn's deadlines; it leaves none set.
//
// With ClientOptions.FromHost, host is the DNS name or IP address that the
// connection is for. It is sent as SNI, and the certificate must be for it
// unless VerifyName or SubjectAltNames is set; without one the handshake fails
// (LOCAL_CONFIG). Sessions of one host are not resumed for another. Without
// FromHost host means nothing.
func (c *Client) HandshakeAs(ctx context.Context, conn net.Conn, host string) (*tls.Conn, error) {
	h, err := c.handshake(host)
	if err != nil {
		return nil, &HandshakeError{Reason: ReasonLocalConfig, Err: err}
	}
	if !c.o.NoSessionReuse {
		h.resume(c.hosts.of(h.host))
	}
	tc := tls.Client(conn, h.config())
	err = h.run(ctx, conn, tc)
	h.session = nil // which tc would keep as long as it lives
	if err != nil {
		if h.offered && !timedOut(err) && !errors.Is(err, context.Canceled) {
			// Either what was resumed does not pass today's checks, or the
			// server chokes on what it does not know. No other session would
			// do better: the next handshake is full, and sees what the
			// server presents now.
			h.sessions.drop(FullRefused)
		}
		_, alerted := remoteAlert(err)
		return nil, &HandshakeError{
			Reason:  h.reason(err),
			Err:     err,
			Refused: h.refused[:min(len(h.refused), maxRefused)],
			Narrow:  h.narrowed != nil && h.version == 0 && alerted,
		}
	}
	c.counters.count(h.full(tc.ConnectionState().DidResume))
	return tc, nil
}
