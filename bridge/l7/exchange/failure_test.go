package exchange

import (
	"crypto/tls"
	"fmt"
	"net"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// On an established connection the alert handshake_failure has another meaning
// than in the first handshake.
func TestReasonsOfAlerts(t *testing.T) {
	alert := func(op string, number tls.AlertError) error { return &net.OpError{Op: op, Err: number} }
	for _, c := range []struct {
		err  error
		want certs.Reason
	}{
		{fmt.Errorf("x: %w", alert("remote error", 40)), certs.ReasonClientCertificateRequired},
		{&upstream.DialError{Phase: "tls", Err: alert("remote error", 40)}, certs.ReasonNoCommonCipher},
		{fmt.Errorf("x: %w", alert("remote error", 48)), certs.ReasonClientCertificateRejected},
		{fmt.Errorf("x: %w", alert("local error", 100)), certs.ReasonRenegotiationRequested},
		{fmt.Errorf("x: %w", alert("local error", 40)), certs.ReasonResponseBroken},
	} {
		if got := reasonOf(c.err); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
	}
}
