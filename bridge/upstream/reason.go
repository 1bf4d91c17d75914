package upstream

import (
	"errors"
	"net"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// ReasonOf returns the reason for a failed request or connection, from the
// error of a Turn or of its endpoint: the reason of certs.Classify, refined by
// what only this package knows.
func ReasonOf(err error) certs.Reason {
	switch {
	case errors.Is(err, ErrOverloaded), errors.Is(err, ErrFull):
		return certs.ReasonOverloaded
	case errors.Is(err, ErrNoEndpoint):
		if _, ok := errors.AsType[*net.DNSError](err); ok {
			return certs.ReasonDNSFailure // the lookup failure is the cause
		}
		return certs.ReasonNoEndpoint
	}
	return certs.Classify(err)
}
