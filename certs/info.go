package certs

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/keyfile"
	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

// Info describes a certificate for display: every text is bounded and escaped.
type Info struct {
	Subject string
	// SANs are the subject alternative names, each with its kind: "DNS:…", "IP:…",
	// "URI:…", "email:…". At most 100 are listed; a warning counts the rest.
	SANs []string
	// Serial and SHA256Fingerprint are in lower-case hexadecimal.
	Issuer, Serial, SHA256Fingerprint string
	NotBefore, NotAfter               time.Time
	// KeyType is the public key's kind and size: "ECDSA P-256", "RSA 2048".
	KeyType string
	// KeyUsages are key usages and extended key usages by their names in RFC 5280:
	// "digitalSignature", "serverAuth".
	KeyUsages []string
	// ChainLength is the number of certificates, including the leaf.
	ChainLength int
	// Warnings are sentences about valid but unusual properties. Findings are
	// their names, in the same order.
	Warnings []string
	Findings []Finding
}

// Describe describes the first certificate of a chain as of now. An empty chain
// gives the zero Info.
func Describe(chain []*x509.Certificate) Info { return describe(chain, time.Now()) }

func describe(chain []*x509.Certificate, now time.Time) Info {
	if len(chain) == 0 {
		return Info{}
	}
	c := chain[0]
	info := Info{
		Subject:           infoName(c.RawSubject, c.Subject),
		Issuer:            infoName(c.RawIssuer, c.Issuer),
		Serial:            fmt.Sprintf("%x", c.SerialNumber),
		SHA256Fingerprint: FingerprintOf(c),
		NotBefore:         c.NotBefore,
		NotAfter:          c.NotAfter,
		KeyType:           keyfile.CertificateKeyType(c),
		KeyUsages:         keyUsages(c),
		ChainLength:       len(chain),
	}
	names, total := altNames(c, maxSANs)
	for _, n := range names {
		info.SANs = append(info.SANs, safetext.Printable(n, 260))
	}
	info.examine(chain, now)
	if total > len(names) {
		info.warn(FindingManyNames, "it has %d names, of which %d are listed", total, len(names))
	}
	return info
}

// SubjectOf returns the subject of a certificate as Info does: printable and bounded.
func SubjectOf(c *x509.Certificate) string { return infoName(c.RawSubject, c.Subject) }

// altNames returns at most limit subject alternative names, and their total.
func altNames(c *x509.Certificate, limit int) (names []string, total int) {
	add := func(kind, name string) {
		if len(names) < limit {
			names = append(names, kind+name)
		}
	}
	for _, n := range c.DNSNames {
		add("DNS:", n)
	}
	for _, ip := range c.IPAddresses {
		add("IP:", ip.String())
	}
	for _, u := range c.URIs {
		add("URI:", u.String())
	}
	for _, n := range c.EmailAddresses {
		add("email:", n)
	}
	return names, len(c.DNSNames) + len(c.IPAddresses) + len(c.URIs) + len(c.EmailAddresses)
}

func usableAs(c *x509.Certificate, usage x509.ExtKeyUsage) bool {
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
		return true
	}
	for _, u := range c.ExtKeyUsage {
		if u == usage || u == x509.ExtKeyUsageAny {
			return true
		}
	}
	return false
}

// describeName returns, in quotes, a certificate's subject, or its first names if
// the subject is empty.
func describeName(c *x509.Certificate) string {
	if s := nameText(c.RawSubject, c.Subject); s != "" {
		return `"` + safetext.Printable(s, 150) + `"`
	}
	names, _ := altNames(c, maxNames+1)
	return `"` + nameList(names) + `"`
}

// nameText returns a distinguished name (RFC 4514), or the size of an absurdly
// long one, because the time that pkix.Name takes grows with the square of the
// number of its parts.
func nameText(raw []byte, name pkix.Name) string {
	if len(raw) > 32<<10 {
		return fmt.Sprintf("(a name of %d bytes)", len(raw))
	}
	return name.String()
}

// infoName returns a distinguished name in the form of an Identity, so that
// every place shows the same text. A name too long for an Identity is
// truncated.
func infoName(raw []byte, name pkix.Name) string {
	if s := subjectText(raw); s != "" && len(s) <= maxText {
		return s
	}
	return safetext.Printable(nameText(raw, name), maxText)
}

// keyUsageNames are the names of RFC 5280, section 4.2.1.3.
var keyUsageNames = []struct {
	bit  x509.KeyUsage
	name string
}{
	{x509.KeyUsageDigitalSignature, "digitalSignature"},
	{x509.KeyUsageContentCommitment, "nonRepudiation"},
	{x509.KeyUsageKeyEncipherment, "keyEncipherment"},
	{x509.KeyUsageDataEncipherment, "dataEncipherment"},
	{x509.KeyUsageKeyAgreement, "keyAgreement"},
	{x509.KeyUsageCertSign, "keyCertSign"},
	{x509.KeyUsageCRLSign, "cRLSign"},
	{x509.KeyUsageEncipherOnly, "encipherOnly"},
	{x509.KeyUsageDecipherOnly, "decipherOnly"},
}

// extKeyUsageNames are the names of RFC 5280, section 4.2.1.12.
var extKeyUsageNames = map[x509.ExtKeyUsage]string{
	x509.ExtKeyUsageAny:             "anyExtendedKeyUsage",
	x509.ExtKeyUsageServerAuth:      "serverAuth",
	x509.ExtKeyUsageClientAuth:      "clientAuth",
	x509.ExtKeyUsageCodeSigning:     "codeSigning",
	x509.ExtKeyUsageEmailProtection: "emailProtection",
	x509.ExtKeyUsageTimeStamping:    "timeStamping",
	x509.ExtKeyUsageOCSPSigning:     "OCSPSigning",
}

func keyUsages(c *x509.Certificate) []string {
	var names []string
	for _, u := range keyUsageNames {
		if c.KeyUsage&u.bit != 0 {
			names = append(names, u.name)
		}
	}
	for _, u := range c.ExtKeyUsage {
		if name := extKeyUsageNames[u]; name != "" {
			names = append(names, name)
		} else {
			names = append(names, fmt.Sprintf("extended usage %d", int(u)))
		}
	}
	for _, oid := range c.UnknownExtKeyUsage {
		names = append(names, safetext.Printable(oid.String(), 100))
	}
	return names[:min(len(names), maxSANs)]
}

// usageList returns the extended key usages for a sentence.
func usageList(c *x509.Certificate) string {
	var names []string
	for _, n := range keyUsages(&x509.Certificate{ExtKeyUsage: c.ExtKeyUsage, UnknownExtKeyUsage: c.UnknownExtKeyUsage}) {
		names = append(names, n)
		if len(names) == maxNames {
			break
		}
	}
	return strings.Join(names, ", ")
}
