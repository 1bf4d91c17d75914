package snapshot

import (
	"maps"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
)

// Codes of warnings: the values of WarningCode in the API.
const (
	warnCertificate       = "CERTIFICATE"
	warnVerification      = "VERIFICATION"
	warnDeprecatedTLS     = "DEPRECATED_TLS"
	warnCipherSuites      = "CIPHER_SUITES"
	warnServerName        = "SERVER_NAME"
	warnClientCertificate = "CLIENT_CERTIFICATE"
	warnNoEffect          = "NO_EFFECT"
	warnTrustsEverybody   = "TRUSTS_EVERYBODY"
	warnClientAuthUsage   = "CLIENT_AUTH_USAGE"
	warnPlaintextClients  = "PLAINTEXT_CLIENTS"
	warnOtherGateways     = "OTHER_GATEWAYS"
	warnMore              = "MORE"
)

// warnElsewhere warns that a resource that was written does not apply to this gateway.
func (s *scope) warnElsewhere(path invalid.Path) {
	if !s.elsewhere {
		return
	}
	own := "has no labels"
	if len(s.job.labels) > 0 {
		var all []string
		for _, key := range slices.Sorted(maps.Keys(s.job.labels)) {
			all = append(all, key+"="+s.job.labels[key])
		}
		own = "has " + strings.Join(all, ",")
	}
	s.job.bad.Warn(warnOtherGateways, path.Field("gateways"), "selects other gateways of the fleet: this one %s, so %v is not live here", own, s.ref)
}

// warnNoUpstream warns of a resource that applies to this gateway and forwards only to
// upstreams that do not.
func (s *scope) warnNoUpstream(p invalid.Path, upstreams ...*liveUpstream) {
	none := !slices.ContainsFunc(upstreams, func(u *liveUpstream) bool { return u != nil })
	if len(upstreams) > 0 && none && !s.elsewhere {
		s.Warn(warnNoEffect, p, "forwards nothing at this gateway: the gateways field of each upstream selects only other gateways")
	}
}
