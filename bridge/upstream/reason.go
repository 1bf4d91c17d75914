package upstream

import (
	"errors"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// Reason returns the reason of an error that getting to an endpoint failed with.
// It is certs.Classify's, with what only this package knows.
func Reason(err error) certs.Reason {
	if errors.Is(err, ErrNoEndpoint) {
		return certs.ReasonNoEndpoint
	}
	return certs.Classify(err)
}
