package proxyproto

import (
	"errors"
	"maps"
	"net"
	"os"
	"sync"
	"time"
)

// ErrUntrusted reports a connection from somebody who may not say for whom it
// is.
var ErrUntrusted = errors.New("the connection is not from a trusted source of PROXY protocol headers")

// Accept reads the header that a new connection must begin with, within
// timeout, and returns for whom the connection is. Where the header names
// nobody, that is whom it is from. Nothing is read from who is not trusted.
// After an error the connection is to be closed; closing it also ends Accept.
func (t *Trust) Accept(conn net.Conn, timeout time.Duration) (Announced, error) {
	if !t.Trusts(conn.RemoteAddr()) {
		return Announced{}, ErrUntrusted
	}
	// One deadline for all of it: whoever sends a byte now and then is not
	// waited for any longer.
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

// A Reason is why a connection was not accepted, in a word.
type Reason string

// The reasons there are.
const (
	Untrusted Reason = "UNTRUSTED" // ErrUntrusted
	Missing   Reason = "MISSING"   // ErrMissing
	Malformed Reason = "MALFORMED" // ErrMalformed
	Timeout   Reason = "TIMEOUT"   // the header did not come in time
	Closed    Reason = "CLOSED"    // the connection ended before the header did
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

// Refusals counts the connections that were not accepted. The zero value is
// ready to use, by any number of goroutines.
type Refusals struct {
	mu sync.Mutex
	by map[Reason]uint64
}

// Add counts an error of Accept, and returns its reason.
func (r *Refusals) Add(err error) Reason {
	why := Classify(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = make(map[Reason]uint64)
	}
	r.by[why]++
	return why
}

// Counts returns how many there were of each reason.
func (r *Refusals) Counts() map[Reason]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.by)
}
