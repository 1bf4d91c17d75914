package probe

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

func tlsVersion(v uint16) string { return tls.VersionName(v) }

func suiteName(id uint16) string { return tls.CipherSuiteName(id) }

// versions returns the lowest and highest version offered.
func versions(o certs.ClientOptions) (lowest, highest uint16) {
	lowest, highest = cmp.Or(o.MinVersion, tls.VersionTLS12), cmp.Or(o.MaxVersion, tls.VersionTLS13)
	return min(lowest, highest), highest
}

// explainNegotiation states what we offered. Only another handshake can tell
// what the endpoint would accept.
func (t *trial) explainNegotiation() diagnosis {
	o, said := t.options, t.detail()
	switch t.reason {
	case certs.ReasonProtocolVersion:
		lowest, highest := versions(o)
		offer := fmt.Sprintf("%s to %s", tlsVersion(lowest), tlsVersion(highest))
		if lowest == highest {
			offer = "only " + tlsVersion(lowest)
		}
		return say("%s supports none of the TLS versions that we allow, %s (%s)", t.where(), offer, said).
			suggest(about("tls.min_version", "set tls.min_version and tls.max_version so that they include a version that the upstream supports"))
	case certs.ReasonNoCommonCipher:
		offer := "Go's secure list"
		if len(o.CipherSuites) > 0 {
			offer = list(suiteNames(o.CipherSuites))
		}
		return say("%s supports none of the cipher suites that we offer, %s (%s)", t.where(), offer, said).
			suggest(about("tls.cipher_suites", "add a suite that the upstream supports to tls.cipher_suites"))
	case certs.ReasonNoCommonGroup:
		offer := "Go's list"
		if len(o.Groups) > 0 {
			offer = list(groupNames(o.Groups))
		}
		return say("%s supports none of the key-exchange groups that we offer, %s (%s)", t.where(), offer, said).
			suggest(about("tls.groups", "add a group that the upstream supports to tls.groups"))
	case certs.ReasonUnrecognizedName:
		if t.sni() == "" {
			return say("%s requires a server name, but we sent no SNI (%s)", t.where(), said).
				suggest(about("tls.server_name", "set tls.server_name to a name that the upstream knows"))
		}
		return say("%s does not know the server name %q that we sent as SNI (%s)", t.where(), t.sni(), said).
			suggest(about("tls.server_name", "set tls.server_name to a name that the upstream knows"))
	}
	return say("%s supports none of the protocols that we offer by ALPN, %s (%s)", t.where(), escape(list(o.NextProtos)), said).
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

// explainClientCertificate states which certificate the endpoint requested and
// which we sent.
func (t *trial) explainClientCertificate() diagnosis {
	var accepts []string
	if t.seen != nil {
		accepts = t.seen.AcceptableCAs
	}
	from := "; it does not name its CAs"
	if len(accepts) > 0 {
		from = "; it accepts those of " + quoted(accepts)
		if more := t.seen.MoreAcceptableCAs; more > 0 {
			from += fmt.Sprintf(", and of %d more CAs", more)
		}
	}
	own := t.options.Certificate
	if own == nil {
		d := say("%s requires a client certificate, but tls.certificate is not set%s (%s)", t.where(), from, t.detail())
		if len(accepts) > 0 {
			return d.suggest(about("tls.certificate", "set tls.certificate to the name of a certificate that was issued by %s", quoted(accepts)))
		}
		return d.suggest(about("tls.certificate", "set tls.certificate to the name of a certificate that the upstream accepts"))
	}
	info, leaf := own.Info(), own.Leaf()
	d := say("%s rejected our client certificate %s, issued by %s%s (%s)", t.where(), subject(leaf), issuer(leaf), from, t.detail())
	now := t.now()
	switch {
	case now.After(leaf.NotAfter):
		d.facts += fmt.Sprintf("; ours expired on %s", stamp(leaf.NotAfter))
		return d.suggest(about("tls.certificate", "set tls.certificate to a certificate that is valid, or renew this one"))
	case now.Before(leaf.NotBefore):
		d.facts += fmt.Sprintf("; ours is not valid before %s", stamp(leaf.NotBefore))
		return d.suggest(about("tls.certificate", "set tls.certificate to a certificate that is valid"))
	case mayNotBeClient(info.KeyUsages):
		d.facts += "; ours may not be used by a client (extended key usage clientAuth is missing)"
		return d.suggest(about("tls.certificate", "set tls.certificate to a certificate with the extended key usage clientAuth"))
	case len(accepts) > 0 && !t.seen.Acceptable:
		d.facts += "; none of them issued ours"
		return d.suggest(about("tls.certificate", "set tls.certificate to the name of a certificate that was issued by %s", quoted(accepts)))
	}
	return d.suggest(about("tls.certificate", "set tls.certificate to a certificate that the upstream accepts; its log explains why it rejected this one"))
}

// doubtClientCertificate warns about servers that complete any handshake and
// reject requests later, as nginx does.
func (t *trial) doubtClientCertificate(d diagnosis) diagnosis {
	seen := t.seen
	from := ""
	if len(seen.AcceptableCAs) > 0 {
		from = " of " + quoted(seen.AcceptableCAs)
	}
	switch {
	case seen.Requested && !seen.Sent:
		d.facts += "; it requested a client certificate" + from + " but we sent none, so it may reject requests"
		return d.suggest(about("tls.certificate", "if it rejects requests, set tls.certificate to the name of a certificate%s", from))
	case seen.Sent && from != "" && !seen.Acceptable:
		d.facts += "; it requested a client certificate" + from + ", but none of them issued ours, so it may reject requests"
		return d.suggest(about("tls.certificate", "if it rejects requests, set tls.certificate to the name of a certificate%s", from))
	}
	return d
}

func mayNotBeClient(usages []string) bool {
	extended := slices.ContainsFunc(usages, func(u string) bool { return strings.HasSuffix(u, "Auth") })
	return extended && !slices.Contains(usages, "clientAuth")
}

func quoted(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = `"` + n + `"`
	}
	return list(out)
}
