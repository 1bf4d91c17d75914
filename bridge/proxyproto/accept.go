package proxyproto

import (
	"errors"
	"maps"
	"net"
	"os"
	"sync"
	"time"
)

// ErrUntrusted reports a connection from a source whose headers are not
// trusted.
var ErrUntrusted = errors.New("the connection is not from a trusted source of PROXY protocol headers")

// Accept reads the header of a new connection within timeout, and returns the
// announced addresses. If the header announces none, they are the addresses of
// the connection. Accept does not read from an untrusted source. After an error
// the caller must close the connection. Closing the connection also ends
// Accept.
func (t *Trust) Accept(conn net.Conn, timeout time.Duration) (Announced, error) {
	if !t.Trusts(conn.RemoteAddr()) {
		return Announced{}, ErrUntrusted
	}
	// The whole header has one deadline, so that a slow sender cannot extend it.
	if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return Announced{}, err
	}
	a, err := Read(conn)
	if err != nil {
		return Announced{}, err
	}
	if a.Source == nil {
		a = Announced{conn.RemoteAddr(), conn.LocalAddr()}
	}
	return a, conn.SetReadDeadline(time.Time{})
}

// A Reason names why a connection was rejected.
type Reason string

// All reasons.
const (
	Untrusted Reason = "UNTRUSTED" // ErrUntrusted
	Missing   Reason = "MISSING"   // ErrMissing
	Malformed Reason = "MALFORMED" // ErrMalformed
	Timeout   Reason = "TIMEOUT"   // the header did not arrive in time
	Closed    Reason = "CLOSED"    // the connection ended before the end of the header
)

// Classify returns the reason for an error of Accept.
func Classify(err error) Reason {
	switch {
	case errors.Is(err, ErrUntrusted):
		return Untrusted
	case errors.Is(err, ErrMissing):
		return Missing
	case errors.Is(err, ErrMalformed):
		return Malformed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Timeout
	}
	return Closed
}

// Refusals counts rejected connections. The zero value is ready for use by any
// number of goroutines.
type Refusals struct {
	mu sync.Mutex
	by map[Reason]uint64
}

// Add counts an error of Accept, and returns its reason.
func (r *Refusals) Add(err error) Reason {
	reason := Classify(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = make(map[Reason]uint64)
	}
	r.by[reason]++
	return reason
}

// Counts returns the count of each reason.
func (r *Refusals) Counts() map[Reason]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.by)
}
