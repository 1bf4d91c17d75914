package certs

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"sync/atomic"
	"time"
)

// A Verifier holds the Requirements in force for the servers of one upstream.
// When the Requirements are replaced, its Clients keep their sessions. It is
// safe for concurrent use.
type Verifier struct{ current atomic.Pointer[Requirements] }

// NewVerifier returns a Verifier in which r is in force.
func NewVerifier(r *Requirements) *Verifier {
	v := new(Verifier)
	v.Require(r)
	return v
}

// Requirements returns the Requirements in force.
func (v *Verifier) Requirements() *Requirements { return v.current.Load() }

// Require puts r in force for every handshake, full or resumed, that has not
// yet verified its peer.
func (v *Verifier) Require(r *Requirements) { v.current.Store(r) }

// Requirements are the conditions for a peer's certificate: the trust anchors
// with their revocation lists, the depth, the names, the pins, and whether
// failures count. They are immutable and may be shared freely.
type Requirements struct {
	verifier
	mode Verification
	// explicitName and serverName are as configured. Without both, and without
	// alternative names, each connection has its own name.
	explicitName, serverName string
}

// NewRequirements returns the Requirements that the options describe with
// Trust, Verification, VerifyDepth, ServerName, VerifyName, SubjectAltNames,
// Pins and Time. The error is Faults, as in NewClient.
func NewRequirements(o ClientOptions) (*Requirements, error) {
	var bad Faults
	r := newRequirements(&bad, &o)
	if err := bad.err(); err != nil {
		return nil, err
	}
	return r, nil
}

func newRequirements(bad *Faults, o *ClientOptions) *Requirements {
	r := &Requirements{mode: o.Verification, explicitName: o.VerifyName}
	if !o.FromHost {
		r.serverName = o.ServerName
	}
	r.now = o.Time
	if r.now == nil {
		r.now = time.Now
	}
	switch o.Verification {
	case VerifyFull, VerifyReportOnly:
		r.trust = clientTrust(bad, o.Trust)
		r.roots = checkTrust(bad, "trust_bundles", r.trust)
	case VerifyInsecureSkip:
		r.trust = o.Trust
	default:
		bad.add("verification", "is not a known value")
	}
	r.usage = x509.ExtKeyUsageServerAuth
	r.depth, r.sans, r.pins = o.VerifyDepth, o.SubjectAltNames, o.Pins
	return r
}

// named reports whether every peer has a name to verify, or needs none.
func (r *Requirements) named() bool {
	return r.explicitName != "" || r.serverName != "" || len(r.sans) > 0 || r.mode == VerifyInsecureSkip
}

// nameOr returns the name that the certificate must match, given the name of
// the connection's server. It does not apply if there are alternative names.
func (r *Requirements) nameOr(serverName string) string {
	return cmp.Or(r.explicitName, r.serverName, serverName)
}

// fill sets the options that r was made from.
func (r *Requirements) fill(o *ClientOptions) {
	o.Verification, o.VerifyDepth, o.VerifyName = r.mode, r.depth, r.explicitName
	o.Trust = slices.Clone(r.trust)
	o.SubjectAltNames = slices.Clone(r.sans)
	o.Pins = slices.Clone(r.pins)
}

// Equal reports whether r and other make the same decision about every peer at
// any time. Trust bundles are compared by identity.
func (r *Requirements) Equal(other *Requirements) bool {
	if r == nil || other == nil {
		return r == other
	}
	return r.mode == other.mode && r.explicitName == other.explicitName && r.serverName == other.serverName &&
		r.anyName == other.anyName && r.rules() == other.rules() && slices.Equal(r.trust, other.trust) &&
		(r.depth == nil) == (other.depth == nil) && (r.depth == nil || *r.depth == *other.depth) &&
		slices.Equal(r.sans, other.sans) && slices.Equal(r.pins, other.pins)
}

// A Peer is the peer of a live connection, with the data to verify it again. It
// refers to the certificates that the *tls.Conn holds and copies none. It is
// immutable.
type Peer struct {
	// Certificates are as presented, leaf first; nil if the peer presented none.
	Certificates []*x509.Certificate
	// ServerName is the SNI that a client sent; "" if it sent none.
	ServerName string
	// Policy is the Server that accepted a client. Nil: the peer is a server.
	Policy *Server

	key   [sha256.Size]byte   // the digest of Certificates
	chain []*x509.Certificate // the chain that passed in the handshake; nil: unknown
	rules chainRules          // the rules under which chain passed
	name  string              // the server's name, for Requirements without a name

	// ownNotAfter is the last moment at which our own certificate is valid. It is zero
	// if we presented no certificate, or an expired one, which the peer accepted.
	ownNotAfter time.Time
}

// NewPeer returns the Peer that presented certificates, which is not verified yet.
func NewPeer(certificates []*x509.Certificate) *Peer {
	return &Peer{Certificates: certificates, key: chainKey(certificates)}
}

// A PeerKey is a comparable key. Peers with equal keys pass or fail together.
type PeerKey struct {
	chain       [sha256.Size]byte
	sni         string
	name        string
	ownNotAfter int64
}

// Key returns the peer's key.
func (p *Peer) Key() PeerKey {
	k := PeerKey{chain: p.key, sni: p.ServerName, name: p.name}
	if !p.ownNotAfter.IsZero() {
		k.ownNotAfter = p.ownNotAfter.UnixNano()
	}
	return k
}

// chainRules are the settings, other than trust and time, that decide whether a
// chain is valid. A chain that passed under equal rules needs no second check of its
// signatures, usages and constraints.
type chainRules struct {
	usage           x509.ExtKeyUsage
	allowServerAuth bool
}

func (v *verifier) rules() chainRules { return chainRules{v.usage, v.allowServerAuth} }

// peer returns the Peer that presented certs. own is the certificate that we
// presented, or nil.
func (v *verifier) peer(certs []*x509.Certificate, name string, own *Certificate, now time.Time) *Peer {
	p := NewPeer(certs)
	p.rules, p.name = v.rules(), name
	if known, ok := v.verified.get(p.key, now); ok {
		p.chain = known.chain
	}
	if own != nil && !now.After(own.Leaf().NotAfter) {
		p.ownNotAfter = own.Leaf().NotAfter
	}
	return p
}

// forever is later than the end of any certificate.
var forever = time.Unix(1<<60, 0)

// Reverify verifies the peer of a live connection again. It returns why the peer no
// longer passes, or nil and the last moment at which it passes.
//
// If a chain passed before and its anchor is still trusted, Reverify repeats only
// the checks whose result can change: validity, revocation, depth, pins and name.
// This costs a few microseconds for each certificate.
func (r *Requirements) Reverify(p *Peer) (until time.Time, failure *VerifyError) {
	now := r.now()
	until, failure = p.reverifyOwn(now)
	switch {
	case failure != nil || r.mode != VerifyFull:
		return until, failure
	case len(p.Certificates) == 0:
		return until, errNoCertificate
	}
	return r.reverify(p, r.nameOr(p.name), now, until)
}

// reverifyOwn verifies the certificate that we presented. No connection outlives it.
func (p *Peer) reverifyOwn(now time.Time) (until time.Time, failure *VerifyError) {
	if p.ownNotAfter.IsZero() {
		return forever, nil
	}
	if now.After(p.ownNotAfter) {
		return p.ownNotAfter, &VerifyError{
			Reason: ReasonOwnCertificateExpired,
			Detail: "our own certificate on this connection expired on " + p.ownNotAfter.UTC().Format(time.RFC3339),
		}
	}
	return p.ownNotAfter, nil
}

// reverify verifies the certificates that the peer presented. The result does not last
// longer than until.
func (v *verifier) reverify(p *Peer, name string, now, until time.Time) (time.Time, *VerifyError) {
	end, failure := v.reverifyChain(p, now)
	if failure == nil {
		failure = v.verifyName(p.Certificates, name)
	}
	if end.Before(until) {
		until = end
	}
	return until, failure
}

// reverifyChain returns the time until which a chain of the peer passes, or the
// reason why no chain passes.
func (v *verifier) reverifyChain(p *Peer, now time.Time) (until time.Time, failure *VerifyError) {
	if known, ok := v.verified.get(p.key, now); ok {
		return known.to, nil
	}
	if p.rules == v.rules() && v.stillPasses(p.chain, now) {
		lasts := v.passingPeriod(p.chain, now)
		v.verified.add(p.key, passedChain{lasts, p.chain})
		return lasts.to, nil
	}
	if _, failures := v.verifyChain(p.Certificates); len(failures) > 0 {
		return now, failures[0]
	}
	if known, ok := v.verified.get(p.key, now); ok {
		return known.to, nil
	}
	return now, nil // other peers have evicted the chain from the cache: verify again soon
}

// stillPasses reports whether a chain that passed before passes now. Signatures,
// usages and constraints of a chain never change.
func (v *verifier) stillPasses(chain []*x509.Certificate, now time.Time) bool {
	if len(chain) == 0 || !v.anchors(chain[len(chain)-1]) {
		return false
	}
	for _, c := range chain {
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return false
		}
	}
	return len(v.checkChain(chain, now)) == 0
}

// anchors reports whether c is a trust anchor.
func (v *verifier) anchors(c *x509.Certificate) bool {
	return slices.ContainsFunc(v.trust, func(b *TrustBundle) bool { return b.holds(c) })
}
