package validity

import (
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// An Owner ends a connection.
type Owner interface {
	// EndWithin makes the connection refuse further work from now on, and end
	// within the grace period; 0 means now. The Set calls it at most once per
	// connection, from its own goroutine, possibly after the connection has ended.
	EndWithin(grace time.Duration, cause *certs.VerifyError)
}

// A Member is one live connection. Its owner keeps it as part of the connection.
// The zero Member belongs to no Set, and its peer always passes.
type Member struct {
	set   *Set
	peer  *certs.Peer
	owner Owner

	verdict atomic.Pointer[verdict] // the latest
	ended   atomic.Pointer[verdict] // the verdict that ends the connection; nil: it continues
}

// A verdict is the result of verifying a peer under a policy. Connections with
// equal peers share it.
type verdict struct {
	policy  *Policy
	until   time.Time          // the last moment at which the peer passes
	failure *certs.VerifyError // nil: the peer passes
}

// isCurrent reports whether the verdict was reached under the policy and still holds at now.
func (v *verdict) isCurrent(p *Policy, now time.Time) bool {
	return v != nil && v.policy == p && (v.failure != nil || !now.After(v.until))
}

// Check returns why the connection must accept no further work, or nil. It
// verifies the peer again if the policy has changed since the last verdict.
func (m *Member) Check() *certs.VerifyError {
	if m == nil || m.set == nil {
		return nil
	}
	return m.CheckUnder(m.set.policy.Load())
}

// Invalid is Check for a socket.Guard.
func (m *Member) Invalid() error {
	if failure := m.Check(); failure != nil {
		return failure
	}
	return nil // not a nil *certs.VerifyError
}

// CheckUnder is Check under the policy of a revision that the Set may not know
// yet.
func (m *Member) CheckUnder(p *Policy) *certs.VerifyError {
	if m == nil || m.set == nil {
		return nil
	}
	v := m.verdict.Load()
	if v == nil || v.policy != p {
		m.set.reverify(m, p, nil)
	}
	if v := m.ended.Load(); v != nil {
		return v.failure
	}
	return nil
}

// Failure returns why the peer did not verify at the last check, or nil. Under
// Report a connection continues despite a failure.
func (m *Member) Failure() *certs.VerifyError {
	if m == nil || m.set == nil {
		return nil
	}
	if v := m.ended.Load(); v != nil {
		return v.failure
	}
	if v := m.verdict.Load(); v != nil {
		return v.failure
	}
	return nil
}

// Verified reports whether the peer verified at the last check.
func (m *Member) Verified() bool { return m.Failure() == nil }

// Peer returns the connection's peer; nil before it is added to a Set.
func (m *Member) Peer() *certs.Peer { return m.peer }
