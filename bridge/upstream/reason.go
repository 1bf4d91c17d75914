package upstream

import (
	"errors"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// ReasonOf returns why a request or connection came to nothing: certs.Classify's
// reason, with what only this package knows.
func ReasonOf(err error) certs.Reason {
	if errors.Is(err, ErrNoEndpoint) {
		return certs.ReasonNoEndpoint
	}
	return certs.Classify(err)
}
