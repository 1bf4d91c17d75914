package probe

import (
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// explainName compares the names in the certificate with the expected ones.
func (t *trial) explainName() diagnosis {
	leaf := t.leaf()
	if leaf == nil {
		return newDiagnosis("%s", t.detail())
	}
	if f := t.chainFault(); f != nil && f.Kind == certs.OrderWrong {
		return newDiagnosis("%s", f.Detail).advise("have the upstream send its own certificate %s first, and each certificate's issuer after it", subject(f.Cert))
	}
	have, want := sans(leaf), list(t.verified())
	if len(have) == 0 {
		return newDiagnosis("the certificate %s of %s has no subject alternative name, only a common name, which is ignored (RFC 9525); we verify %s", subject(leaf), t.where(), want).
			advise("have the certificate issued again with %s as subject alternative name", want)
	}
	d := newDiagnosis("the certificate is for %s; we verify %s", list(have), want)
	if len(t.options.SubjectAltNames) > 0 {
		if exact := exactName(leaf); exact != "" {
			return d.suggest(setToList("tls.subject_alt_names", exact).and(" if that is the upstream"))
		}
		return d.advise("have the certificate issued again with %s as subject alternative name", want)
	}
	// It suggests only a name that would verify. An IP address in a DNS name of
	// the certificate, for example, matches nothing.
	name, field := "", "tls.verify_name"
	matches := func(n string) bool { return leaf.VerifyHostname(n) == nil }
	if i := slices.IndexFunc(have, func(n string) bool { return isDNSName(n) && matches(n) }); i >= 0 {
		name = have[i]
	} else if i := slices.IndexFunc(have, func(n string) bool { return isAddress(n) && matches(n) }); i >= 0 {
		name = have[i]
	} else if wild := slices.IndexFunc(have, func(n string) bool { return strings.HasPrefix(n, "*.") && matches("any"+n[1:]) }); wild >= 0 {
		return d.suggest(about("tls.verify_name", "set tls.verify_name to the upstream's name, which %s must cover", have[wild]))
	} else if exact := exactName(leaf); exact != "" {
		return d.suggest(setToList("tls.subject_alt_names", exact).and(" if that is the upstream"))
	} else {
		d.facts += "; none of these names can be verified"
		return d.advise("have the certificate issued again with %s as subject alternative name", want)
	}
	if t.seen.ServerName == "" && isDNSName(name) && !t.options.NoServerName && !t.options.FromHost && t.options.VerifyName == "" {
		field = "tls.server_name" // the name is also sent as SNI
	}
	return d.suggest(setToString(field, name).and(" if that is the upstream"))
}

// exactName returns the certificate's first name that tls.subject_alt_names
// supports, with its kind, or "".
func exactName(c *x509.Certificate) string {
	for _, name := range certs.Describe([]*x509.Certificate{c}).SANs {
		if parsed, err := certs.ParseSANs([]string{name}); err == nil && parsed[0].Matches(c) {
			return name
		}
	}
	return ""
}

func isAddress(n string) bool {
	_, err := netip.ParseAddr(n)
	return err == nil
}

func isDNSName(n string) bool {
	if n == "" || strings.ContainsAny(n, "*:/@\\ ") {
		return false
	}
	_, err := netip.ParseAddr(n)
	return err != nil
}
