package probe

import (
	"context"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A variation is the settings with one change. No variation verifies less than
// the settings.
type variation struct {
	change     string // the field and its value
	apply      func(*certs.ClientOptions)
	suggestion Suggestion              // the change as a suggestion
	advice     func(*trial) Suggestion // returns the suggestion, given the trial in which the change helped; nil: use suggestion

	// refine returns a smaller change, given the trial in which this one helped. The
	// smaller change is tried too, and replaces this one if it helps. Nil: the change
	// cannot be refined.
	refine func(*trial) (variation, bool)

	result *trial
}

// retry tries variations of the settings until one is informative. It returns
// every attempt, and that variation.
func (t *trial) retry(ctx context.Context) (attempts []Attempt, informative *variation) {
	if t.target.Client == nil || !t.connected {
		return nil, nil
	}
	all := trials{t}.variations()
	all = all[:min(len(all), maxAttempts)]
	ctx, cancel := context.WithTimeout(ctx, retryTime)
	defer cancel()
	try := func(v *variation) (helps bool) {
		o := t.options
		v.apply(&o)
		v.result = t.target.try(ctx, o, timeouts{min(t.timeouts.connect, trialTime), min(t.timeouts.handshake, trialTime)})
		if ctx.Err() != nil {
			return false // the result means nothing, because the probe ends
		}
		attempts = append(attempts, Attempt{Change: v.change, Reason: v.result.reason})
		return t.reason == "" || t.helpedBy(v.result)
	}
	for i := range all {
		v := &all[i]
		if !try(v) {
			continue
		}
		if v.refine != nil {
			if w, ok := v.refine(v.result); ok && try(&w) {
				return attempts, &w
			}
		}
		return attempts, v
	}
	return attempts, nil
}

// stage orders reasons by how far the connection got.
func stage(r certs.Reason) int {
	switch r {
	case "":
		return 3
	case certs.ReasonUnknownCA, certs.ReasonExpired, certs.ReasonNotYetValid, certs.ReasonNameMismatch, certs.ReasonDepthExceeded,
		certs.ReasonWrongKeyUsage, certs.ReasonRevoked, certs.ReasonCRLExpired, certs.ReasonPinMismatch:
		return 1
	case certs.ReasonClientCertificateRequired, certs.ReasonClientCertificateRejected:
		return 2
	}
	return 0
}

// helpedBy reports whether the other trial got further than t.
func (t *trial) helpedBy(other *trial) bool {
	return other.reason == "" || stage(other.reason) > stage(t.reason)
}

// variations returns the variations that may explain the failure, most likely
// first.
func (t trials) variations() []variation {
	var out []variation
	add := func(vs ...[]variation) {
		for _, v := range vs {
			out = append(out, v...)
		}
	}
	switch t.reason {
	case "":
		add(t.verifying())
	case certs.ReasonPeerClosed, certs.ReasonHandshakeTimeout, certs.ReasonOther:
		add(t.classicGroups(), t.otherName(), t.lowerVersion(), t.otherProtocols(), t.moreSuites())
	case certs.ReasonNoCommonCipher:
		add(t.moreSuites(), t.classicGroups(), t.moreGroups(), t.otherName(), t.lowerVersion())
	case certs.ReasonNoCommonGroup:
		add(t.moreGroups(), t.classicGroups(), t.lowerVersion())
	case certs.ReasonProtocolVersion:
		add(t.otherVersions(), t.otherName())
	case certs.ReasonUnrecognizedName, certs.ReasonNameMismatch:
		add(t.otherName())
	case certs.ReasonUnknownCA:
		if t.sni() == "" {
			add(t.otherName()) // the certificate for clients without a name may be a placeholder
		}
	case certs.ReasonALPNMismatch:
		add(t.otherProtocols())
	}
	return out
}
