package probe

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// maxNames is the number of names listed in a sentence.
const maxNames = 5

// escape returns s in printable form, truncated to a readable length.
func escape(s string) string {
	q := quote(s, 200)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// quote returns at most most bytes of s, escaped and in quotes.
func quote(s string, most int) string {
	if len(s) <= most {
		return strconv.Quote(s)
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	q := strconv.Quote(s[:most])
	return q[:len(q)-1] + `…"`
}

// subject returns a certificate's subject or, if that is empty, its first
// names.
func subject(c *x509.Certificate) string {
	info := certs.Describe([]*x509.Certificate{c})
	if info.Subject != "" {
		return `"` + info.Subject + `"`
	}
	return `"` + list(info.SANs) + `"`
}

// issuer returns the name of a certificate's issuer.
func issuer(c *x509.Certificate) string {
	return `"` + certs.Describe([]*x509.Certificate{c}).Issuer + `"`
}

// list joins the first names.
func list(names []string) string {
	if len(names) <= maxNames {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNames], ", "), len(names)-maxNames)
}

// values writes a list field's value.
func values(names ...string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = strconv.Quote(n)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// sans returns the names of a certificate, at most 100: host names and
// addresses without their kind.
func sans(c *x509.Certificate) []string {
	var out []string
	for _, n := range certs.Describe([]*x509.Certificate{c}).SANs {
		n = strings.TrimPrefix(strings.TrimPrefix(n, "DNS:"), "IP:")
		out = append(out, n)
	}
	return out
}

// versionValue returns a version as its API enum value.
func versionValue(v uint16) string {
	switch v {
	case tls.VersionTLS10:
		return "TLS_VERSION_1_0"
	case tls.VersionTLS11:
		return "TLS_VERSION_1_1"
	case tls.VersionTLS12:
		return "TLS_VERSION_1_2"
	}
	return "TLS_VERSION_1_3"
}

// GroupName returns the API's name of a key-exchange group.
func GroupName(id tls.CurveID) string {
	switch id {
	case tls.CurveP256:
		return "P-256"
	case tls.CurveP384:
		return "P-384"
	case tls.CurveP521:
		return "P-521"
	}
	return id.String()
}

func groupNames(ids []tls.CurveID) []string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = GroupName(id)
	}
	return names
}

// span formats a duration for people.
func span(d time.Duration) string {
	d = d.Abs()
	unit := func(n time.Duration, name string) string {
		if n == 1 {
			return "1 " + name
		}
		return fmt.Sprintf("%d %ss", n, name)
	}
	switch {
	case d >= 48*time.Hour:
		return unit(d/(24*time.Hour), "day")
	case d >= 2*time.Hour:
		return unit(d/time.Hour, "hour")
	case d >= 2*time.Minute:
		return unit(d/time.Minute, "minute")
	}
	return unit(d/time.Second, "second")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
