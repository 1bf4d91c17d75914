package probe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// explainClientCertificate states which certificate the endpoint requested and
// which one the gateway sent.
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
		d := newDiagnosis("%s requires a client certificate, but tls.certificate is not set%s (%s)", t.where(), from, t.detail())
		return t.adviseCertificate(d, "")
	}
	info, leaf := own.Info(), own.Leaf()
	d := newDiagnosis("%s rejected our client certificate %s, issued by %s%s (%s)", t.where(), subject(leaf), issuer(leaf), from, t.detail())
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
		return t.adviseCertificate(d, "")
	}
	return d.suggest(about("tls.certificate", "set tls.certificate to a certificate that the upstream accepts; its log explains why it rejected this one"))
}

// explainKeyType is for servers that cannot verify signatures of the gateway's
// key. The gateway detects that before it sends the certificate.
func (t *trial) explainKeyType(e *certs.KeyTypeError) diagnosis {
	d := newDiagnosis("%s cannot use our client certificate %s: %s; none was sent", t.where(), subject(t.options.Certificate.Leaf()), e.Error())
	if names := t.fitting(); len(names) > 0 {
		return adviseNames(d, "", names)
	}
	if len(e.Accepted) == 0 {
		return d.advise("have the upstream accept RSA, ECDSA or Ed25519 keys")
	}
	from := ""
	if accepts := t.seen.AcceptableCAs; len(accepts) > 0 {
		from = ", issued by " + quoted(accepts)
	}
	return d.suggest(about("tls.certificate", "set tls.certificate to the name of a certificate with a key of the type %s%s", alternatives(e.Accepted), from))
}

// adviseCertificate advises another client certificate: stored ones that meet
// the request, or a certificate from one of the named CAs.
func (t *trial) adviseCertificate(d diagnosis, condition string) diagnosis {
	if t.seen == nil || len(t.seen.AcceptableCAs) == 0 {
		return d.suggest(about("tls.certificate", "%sset tls.certificate to the name of a certificate that the upstream accepts", condition))
	}
	if names := t.fitting(); len(names) > 0 {
		return adviseNames(d, condition, names)
	}
	return d.suggest(about("tls.certificate", "%sset tls.certificate to the name of a certificate that was issued by %s", condition, quoted(t.seen.AcceptableCAs)))
}

func adviseNames(d diagnosis, condition string, names []string) diagnosis {
	s := setToString("tls.certificate", names[0])
	s.Text = condition + s.Text
	if more := names[1:]; len(more) > 0 {
		s = s.and(", or to another stored certificate that meets the request: %s", quoted(more))
	}
	return d.suggest(s)
}

// maxFitting bounds the stored certificates that are compared with a request.
const maxFitting = 200

// fitting returns the names of the stored certificates, other than the
// configured one, that meet the endpoint's request and are currently valid for
// a client.
func (t *trial) fitting() []string {
	var names []string
	now := t.now()
	for _, c := range t.target.Certificates[:min(len(t.target.Certificates), maxFitting)] {
		leaf := c.Cert.Leaf()
		if c.Cert == t.options.Certificate || now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) || mayNotBeClient(c.Cert.Info().KeyUsages) {
			continue
		}
		if t.seen.Fits(c.Cert) {
			names = append(names, c.Name)
		}
	}
	return names
}

// alternatives joins words: "RSA, ECDSA or Ed25519".
func alternatives(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
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
		return t.adviseCertificate(d, "if it rejects requests, ")
	case seen.Sent && from != "" && !seen.Acceptable:
		d.facts += "; it requested a client certificate" + from + ", but none of them issued ours, so it may reject requests"
		return t.adviseCertificate(d, "if it rejects requests, ")
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
