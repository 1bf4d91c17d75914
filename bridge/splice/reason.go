package splice

import "github.com/drawbridge-gateway/drawbridge/certs"

// Reason returns why the splice ended, or "" if no side failed.
func (r Result) Reason() certs.Reason {
	if r.How == Unverified {
		return certs.Classify(r.Cause)
	}
	return r.How.Reason()
}

// Reason returns the reason for an ending that one side's failure caused, or "" if no
// side failed.
func (e Ending) Reason() certs.Reason {
	switch e {
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
