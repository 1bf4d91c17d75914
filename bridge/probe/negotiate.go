package probe

import (
	"cmp"
	"crypto/tls"
	"fmt"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

func tlsVersion(v uint16) string { return tls.VersionName(v) }

func suiteName(id uint16) string { return tls.CipherSuiteName(id) }

// versions returns the lowest and highest version offered.
func versions(o certs.ClientOptions) (lowest, highest uint16) {
	lowest, highest = cmp.Or(o.MinVersion, tls.VersionTLS12), cmp.Or(o.MaxVersion, tls.VersionTLS13)
	return min(lowest, highest), highest
}

// explainNegotiation states the gateway's offer. Only another handshake can
// show what the endpoint would accept.
func (t *trial) explainNegotiation() diagnosis {
	o, detail := t.options, t.detail()
	switch t.reason {
	case certs.ReasonProtocolVersion:
		lowest, highest := versions(o)
		offer := fmt.Sprintf("%s to %s", tlsVersion(lowest), tlsVersion(highest))
		if lowest == highest {
			offer = "only " + tlsVersion(lowest)
		}
		return newDiagnosis("%s supports none of the TLS versions that we allow, %s (%s)", t.where(), offer, detail).
			suggest(about("tls.min_version", "set tls.min_version and tls.max_version so that they include a version that the upstream supports"))
	case certs.ReasonNoCommonCipher:
		offer := "Go's secure list"
		if len(o.CipherSuites) > 0 {
			offer = list(suiteNames(o.CipherSuites))
		}
		return newDiagnosis("%s supports none of the cipher suites that we offer, %s (%s)", t.where(), offer, detail).
			suggest(about("tls.cipher_suites", "add a suite that the upstream supports to tls.cipher_suites"))
	case certs.ReasonNoCommonGroup:
		offer := "Go's list"
		if len(o.Groups) > 0 {
			offer = list(groupNames(o.Groups))
		}
		return newDiagnosis("%s supports none of the key-exchange groups that we offer, %s (%s)", t.where(), offer, detail).
			suggest(about("tls.groups", "add a group that the upstream supports to tls.groups"))
	case certs.ReasonUnrecognizedName:
		if t.sni() == "" {
			return newDiagnosis("%s requires a server name, but we sent no SNI (%s)", t.where(), detail).
				suggest(about("tls.server_name", "set tls.server_name to a name that the upstream knows"))
		}
		return newDiagnosis("%s does not know the server name %q that we sent as SNI (%s)", t.where(), t.sni(), detail).
			suggest(about("tls.server_name", "set tls.server_name to a name that the upstream knows"))
	}
	return newDiagnosis("%s supports none of the protocols that we offer by ALPN, %s (%s)", t.where(), escape(list(o.NextProtos)), detail).
		suggest(about("tls.alpn", "set tls.alpn to a protocol that the upstream supports"))
}

func suiteNames(ids []uint16) []string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = suiteName(id)
	}
	return names
}

// sni returns the SNI that was sent, escaped.
func (t *trial) sni() string {
	if t.seen == nil {
		return ""
	}
	return escape(t.seen.ServerName)
}
