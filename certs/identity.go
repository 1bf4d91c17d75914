package certs

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"strings"
)

// An Identity describes a certificate's holder for programs that make
// decisions. Every text is printable ASCII. No text is truncated, because two
// truncated names could compare as equal: a text that is too long is "".
type Identity struct {
	// Subject is the distinguished name (RFC 4514), "CN=a,O=b", in the
	// certificate's order, most specific first. Characters outside printable ASCII
	// are escaped as two hexadecimal digits. A value that is not text is "#" and
	// its encoding. At most 2,048 bytes.
	Subject string
	// SubjectAltNames are "DNS:…", "IP:…", "URI:…" and "email:…", separated by
	// commas. Within a name, a comma, backslash, blank, quote or character outside
	// printable ASCII is a backslash and two hexadecimal digits, so a comma always
	// separates. At most 4,096 bytes.
	SubjectAltNames string
	// Serial and SHA256Fingerprint are in lower-case hexadecimal.
	Serial, SHA256Fingerprint string
}

// Bounds on an Identity.
const (
	maxSubject  = 2048
	maxAltNames = 4096
	maxSerial   = 128 // hexadecimal digits
)

// Identify returns the Identity of a certificate.
func Identify(c *x509.Certificate) Identity {
	id := Identity{Subject: subjectText(c.RawSubject), SHA256Fingerprint: FingerprintOf(c)}
	if serial := fmt.Sprintf("%x", c.SerialNumber); len(serial) <= maxSerial {
		id.Serial = serial
	}
	if names, total := altNames(c, maxAltNames); total == len(names) {
		for i, n := range names {
			names[i] = escapeHex(n, ",\\ \"")
		}
		if all := strings.Join(names, ","); len(all) <= maxAltNames {
			id.SubjectAltNames = all
		}
	}
	return id
}

// A rdnSET is a relative distinguished name (RFC 5280, section 4.1.2.4).
// encoding/asn1 recognizes a SET by the suffix of the type name.
type rdnSET []struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// attributeNames are the names of RFC 4514, section 3, and two more of
// pkix.Name.
var attributeNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.6": "C", "2.5.4.9": "STREET",
	"0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
	"2.5.4.5": "SERIALNUMBER", "2.5.4.17": "POSTALCODE",
}

// subjectText returns an encoded name in the form of Identity.Subject.
// pkix.Name would lose the order and print values that are not text in Go
// syntax.
func subjectText(raw []byte) string {
	if len(raw) > maxSubject {
		return ""
	}
	var name []rdnSET
	if rest, err := asn1.Unmarshal(raw, &name); err != nil || len(rest) > 0 {
		return ""
	}
	var b strings.Builder
	for i := len(name) - 1; i >= 0; i-- {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		for j, a := range name[i] {
			if j > 0 {
				b.WriteByte('+')
			}
			oid := a.Type.String()
			var value any
			_, err := asn1.Unmarshal(a.Value.FullBytes, &value)
			text, isText := value.(string)
			if short := attributeNames[oid]; short != "" && isText && err == nil {
				b.WriteString(short + "=" + escapeValue(text))
			} else {
				b.WriteString(oid + "=#" + hex.EncodeToString(a.Value.FullBytes))
			}
		}
	}
	if b.Len() > maxSubject {
		return ""
	}
	return b.String()
}

// escapeValue escapes an attribute's value (RFC 4514, section 2.4).
func escapeValue(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%02X`, c)
		case strings.IndexByte(`"+,;<>\`, c) >= 0, c == '#' && i == 0, c == ' ' && (i == 0 || i == len(s)-1):
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// escapeHex replaces each character that is in special or outside printable
// ASCII with a backslash and two digits.
func escapeHex(s, special string) string {
	plain := func(c byte) bool { return ' ' <= c && c <= '~' && strings.IndexByte(special, c) < 0 }
	var b strings.Builder
	for i := range len(s) {
		if plain(s[i]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, `\%02X`, s[i])
		}
	}
	return b.String()
}
