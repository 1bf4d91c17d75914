package upstream

import (
	"errors"
	"net"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// ReasonOf returns why a request or connection came to nothing, by the error of a
// Turn or of what was done at its endpoint: certs.Classify's reason, with what only
// this package knows.
func ReasonOf(err error) certs.Reason {
	switch {
	case errors.Is(err, ErrOverloaded), errors.Is(err, ErrFull):
		return certs.ReasonOverloaded
	case errors.Is(err, ErrNoEndpoint):
		if _, ok := errors.AsType[*net.DNSError](err); ok {
			return certs.ReasonDNSFailure // which is why there is none
		}
		return certs.ReasonNoEndpoint
	}
	return certs.Classify(err)
}
