package validity

import (
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// An Action is the treatment of a connection whose peer no longer verifies.
type Action int

// The zero Action is Drain.
const (
	Drain  Action = iota // the connection takes no further work and ends within Policy.Grace
	Close                // the connection ends at once
	Report               // the connection continues, and the failure is reported
)

// A Verifier verifies the peers of live connections.
type Verifier interface {
	// Reverify returns why a peer does not pass, or nil and the last moment at which it
	// passes.
	Reverify(p *certs.Peer) (until time.Time, failure *certs.VerifyError)
}

// A Policy says how the peers of a Set are verified in one revision. It is
// immutable: policies are compared by their addresses.
type Policy struct {
	Verifier Verifier // nil: every peer passes
	Action   Action
	Grace    time.Duration // used by Drain
}

// ends reports whether the policy ends a connection for this failure. A peer
// without the certificate that a policy requires was never verified at all, so
// even Report ends its connection.
func (p *Policy) ends(failure *certs.VerifyError) bool {
	return p.Action != Report || failure.Reason == certs.ReasonClientCertificateRequired
}

// grace returns how long a connection may continue after its peer failed.
func (p *Policy) grace() time.Duration {
	if p.Action == Close {
		return 0
	}
	return p.Grace
}

// A Finding is a number of connections of a Set whose peers no longer verify, for one
// reason.
type Finding struct {
	Reason certs.Reason
	Count  int
	Ended  bool   // false: only reported
	Detail string // the failure of one of the connections
}

// Message describes the treatment of the connections and its reason.
func (f Finding) Message() string {
	if f.Ended {
		return "they end: " + f.Detail
	}
	return "they continue, because revalidation only reports: " + f.Detail
}
