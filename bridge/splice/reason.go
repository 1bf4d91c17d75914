package splice

import "github.com/drawbridge-gateway/drawbridge/certs"

// Reason returns the reason for an ending that one side caused, or "" if neither did.
func (r Result) Reason() certs.Reason {
	switch r.Ending {
	case Unverified:
		return certs.Classify(r.Cause)
	case ClientReset:
		return certs.ReasonClientReset
	case ClientTruncated:
		return certs.ReasonClientTruncated
	case ClientFailed:
		return certs.ReasonClientFailed
	case UpstreamReset:
		return certs.ReasonUpstreamReset
	case UpstreamTruncated:
		return certs.ReasonUpstreamTruncated
	case UpstreamFailed:
		return certs.ReasonUpstreamFailed
	}
	return ""
}
