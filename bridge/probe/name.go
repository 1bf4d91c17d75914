package probe

import (
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// explainName says whom the certificate is for and whom we wanted.
func (t *trial) explainName() diagnosis {
	leaf := t.leaf()
	if leaf == nil {
		return say("%s", t.detail())
	}
	have, want := sans(leaf), list(t.verified())
	if len(have) == 0 {
		return say("the certificate %s of %s has no subject alternative name, only a common name, which is not looked at (RFC 9525); we verify %s", subject(leaf), t.where(), want).
			advise("have the certificate issued again with %s as subject alternative name", want)
	}
	d := say("the certificate is for %s; we verify %s", list(have), want)
	if len(t.options.SubjectAltNames) > 0 {
		return d.advise("set tls.subject_alt_names to %s if that is the upstream", values(kinded(leaf)))
	}
	name, field := have[0], "tls.verify_name"
	if i := slices.IndexFunc(have, isDNSName); i >= 0 {
		name = have[i]
	} else if _, err := netip.ParseAddr(name); err != nil {
		if wild := slices.IndexFunc(have, func(n string) bool { return strings.HasPrefix(n, "*.") }); wild >= 0 {
			return d.advise("set tls.verify_name to the upstream's name, which %s must cover", have[wild])
		}
		return d.advise("set tls.subject_alt_names to %s if that is the upstream", values(kinded(leaf)))
	}
	if t.seen.ServerName == "" && isDNSName(name) && !t.options.NoServerName && !t.options.FromHost && t.options.VerifyName == "" {
		field = "tls.server_name" // and it is then sent, too
	}
	return d.advise("set %s to %q if that is the upstream", field, name)
}

// kinded returns a certificate's first name with its kind.
func kinded(c *x509.Certificate) string {
	return certs.Describe([]*x509.Certificate{c}).SANs[0]
}

func isDNSName(n string) bool {
	if n == "" || strings.ContainsAny(n, "*:/@\\ ") {
		return false
	}
	_, err := netip.ParseAddr(n)
	return err != nil
}
