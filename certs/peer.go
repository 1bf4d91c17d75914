package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"time"
)

// A Peer is the peer of a live connection: what it presented, and what is needed
// to judge it again. It refers to the certificates that the *tls.Conn holds and
// copies none. It is immutable.
type Peer struct {
	// Certificates are as presented, leaf first. Nil: none.
	Certificates []*x509.Certificate
	// ServerName is the SNI that a client sent; "" if it sent none.
	ServerName string
	// Policy is the Server that accepted a client. Nil: the peer is a server.
	Policy *Server

	key   [sha256.Size]byte   // of Certificates
	chain []*x509.Certificate // that passed in the handshake; nil: unknown
	rules chainRules          // under which it passed
	name  string              // of the server, for Requirements without a name

	// ownEnd is the last moment at which our own certificate is valid. It is zero
	// if we presented none, or one that had already expired: the peer knew that.
	ownEnd time.Time
}

// NewPeer returns the Peer that presented certificates, which is not verified yet.
func NewPeer(certificates []*x509.Certificate) *Peer {
	return &Peer{Certificates: certificates, key: chainKey(certificates)}
}

// A PeerKey is equal for peers about which every judgment is the same.
type PeerKey struct {
	chain  [sha256.Size]byte
	sni    string
	name   string
	ownEnd int64
}

// Key returns the peer's key.
func (p *Peer) Key() PeerKey {
	k := PeerKey{chain: p.key, sni: p.ServerName, name: p.name}
	if !p.ownEnd.IsZero() {
		k.ownEnd = p.ownEnd.UnixNano()
	}
	return k
}

// chainRules are what decides, besides trust and time, whether a chain is
// valid. A chain that passed under equal rules needs no second check of its
// signatures, usages and constraints.
type chainRules struct {
	usage  x509.ExtKeyUsage
	either bool
}

func (v *verifier) rules() chainRules { return chainRules{v.usage, v.either} }

// peer returns the Peer that presented certs. own is the certificate that we
// presented, or nil.
func (v *verifier) peer(certs []*x509.Certificate, name string, own *Certificate, now time.Time) *Peer {
	p := NewPeer(certs)
	p.rules, p.name = v.rules(), name
	if known, ok := v.verified.get(p.key, now); ok {
		p.chain = known.chain
	}
	if own != nil && !now.After(own.Leaf().NotAfter) {
		p.ownEnd = own.Leaf().NotAfter
	}
	return p
}

// forever is later than the end of any certificate.
var forever = time.Unix(1<<60, 0)

// Judge verifies the peer of a live connection again. It returns why the peer no
// longer passes, or nil and the last moment at which it passes.
//
// If a chain passed before and its anchor is still trusted, Judge repeats only
// the checks whose result can change: validity, revocation, depth, pins and
// name. A certificate costs a few microseconds then.
func (r *Requirements) Judge(p *Peer) (until time.Time, failure *VerifyError) {
	now := r.now()
	until, failure = p.judgeOwn(now)
	switch {
	case failure != nil || r.mode != VerifyFull:
		return until, failure
	case len(p.Certificates) == 0:
		return until, &VerifyError{Reason: ReasonBadCertificate, Detail: "the peer presented no certificate"}
	}
	return r.judge(p, r.nameOr(p.name), now, until)
}

// judgeOwn judges the certificate that we presented. An identity does not outlive
// its validity, whatever the peer is.
func (p *Peer) judgeOwn(now time.Time) (until time.Time, failure *VerifyError) {
	if p.ownEnd.IsZero() {
		return forever, nil
	}
	if now.After(p.ownEnd) {
		return p.ownEnd, &VerifyError{
			Reason: ReasonOwnCertificateExpired,
			Detail: "our own certificate, which the connection was made with, expired on " + p.ownEnd.UTC().Format(time.RFC3339),
		}
	}
	return p.ownEnd, nil
}

// judge judges the certificates that the peer presented. The result does not last
// longer than until.
func (v *verifier) judge(p *Peer, name string, now, until time.Time) (time.Time, *VerifyError) {
	end, failure := v.judgeChain(p, now)
	if failure == nil {
		failure = v.verifyName(p.Certificates, name)
	}
	if end.Before(until) {
		until = end
	}
	return until, failure
}

// judgeChain returns until when a chain of the peer passes, or why none passes.
func (v *verifier) judgeChain(p *Peer, now time.Time) (until time.Time, failure *VerifyError) {
	if known, ok := v.verified.get(p.key, now); ok {
		return known.to, nil
	}
	if p.rules == v.rules() && v.stillPasses(p.chain, now) {
		lasts := v.lasts(p.chain, now)
		v.verified.add(p.key, passed{lasts, p.chain})
		return lasts.to, nil
	}
	if _, failures := v.verifyChain(p.Certificates); len(failures) > 0 {
		return now, failures[0]
	}
	if known, ok := v.verified.get(p.key, now); ok {
		return known.to, nil
	}
	return now, nil // evicted by other peers: judge again soon
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
	for _, b := range v.trust {
		if b.holds(c) {
			return true
		}
	}
	return false
}
