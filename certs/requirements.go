package certs

import (
	"cmp"
	"crypto/x509"
	"slices"
	"sync/atomic"
	"time"
)

// A Verifier holds the Requirements in force for the servers of one upstream.
// Its Clients and their sessions stay when the Requirements are replaced. It is
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

// Require puts r in force for every handshake that has not yet verified its
// peer, resumed ones included.
func (v *Verifier) Require(r *Requirements) { v.current.Store(r) }

// Requirements state what a peer's certificate must satisfy: the trust anchors
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
		bad.add("verification", "is of no known kind")
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
// the connection's server. It has no meaning if there are alternative names.
func (r *Requirements) nameOr(own string) string { return cmp.Or(r.explicitName, r.serverName, own) }

// fill sets the options that r was made from.
func (r *Requirements) fill(o *ClientOptions) {
	o.Verification, o.VerifyDepth, o.VerifyName = r.mode, r.depth, r.explicitName
	o.Trust = slices.Clone(r.trust)
	o.SubjectAltNames = slices.Clone(r.sans)
	o.Pins = slices.Clone(r.pins)
}

// Equal reports whether both make the same decisions about every peer at any
// time. Trust bundles are compared by identity.
func (r *Requirements) Equal(other *Requirements) bool {
	if r == nil || other == nil {
		return r == other
	}
	return r.mode == other.mode && r.explicitName == other.explicitName && r.serverName == other.serverName &&
		r.anyName == other.anyName && r.rules() == other.rules() && slices.Equal(r.trust, other.trust) &&
		(r.depth == nil) == (other.depth == nil) && (r.depth == nil || *r.depth == *other.depth) &&
		slices.Equal(r.sans, other.sans) && slices.Equal(r.pins, other.pins)
}
