package certs

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

// ParseDistinguishedName parses a distinguished name, "CN=a,O=b" (RFC 4514), and
// returns it in the form of Identity.Subject and IssuerName, so that equal names are
// equal strings. Blanks around the separators, the case of types and the choice of
// escapes do not matter; the order of the parts does.
func ParseDistinguishedName(text string) (string, error) {
	if len(text) > maxSubject {
		return "", fmt.Errorf("has %d bytes; at most %d are allowed", len(text), maxSubject)
	}
	var b strings.Builder
	for rest, more := text, true; more; {
		var part, separator string
		part, separator, rest = cutUnescaped(rest)
		typ, value, ok := strings.Cut(part, "=")
		if !ok {
			return "", fmt.Errorf("%q is not a distinguished name such as %q", safetext.Printable(text, 150), "CN=Corp CA,O=Corp")
		}
		name, err := attributeName(strings.TrimSpace(typ))
		if err != nil {
			return "", err
		}
		value, err = attributeValue(value)
		if err != nil {
			return "", fmt.Errorf("the value of %s %w", name, err)
		}
		b.WriteString(name + "=" + value + separator)
		more = separator != ""
	}
	return b.String(), nil
}

// cutUnescaped cuts text at the first comma or plus sign that no backslash escapes.
func cutUnescaped(text string) (part, separator, rest string) {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case ',', '+':
			return text[:i], text[i : i+1], text[i+1:]
		}
	}
	return text, "", ""
}

// attributeName returns the name of an attribute's type as subjectText writes it.
func attributeName(typ string) (string, error) {
	if name, ok := attributeNames[typ]; ok { // typ is an object identifier
		return name, nil
	}
	names := slices.Collect(maps.Values(attributeNames))
	for _, name := range names {
		if strings.EqualFold(name, typ) {
			return name, nil
		}
	}
	if typ == "" || strings.Trim(typ, "0123456789.") != "" {
		slices.Sort(names)
		return "", fmt.Errorf("%q is not an attribute type: want %s or an object identifier", safetext.Printable(typ, 40), strings.Join(names, ", "))
	}
	return typ, nil
}

// attributeValue returns the value of an attribute as subjectText writes it.
func attributeValue(text string) (string, error) {
	text = strings.TrimLeft(text, " ")
	if encoding, ok := strings.CutPrefix(text, "#"); ok {
		der, err := hex.DecodeString(strings.TrimRight(encoding, " "))
		if err != nil {
			return "", errors.New("is not hexadecimal after its #")
		}
		return "#" + hex.EncodeToString(der), nil
	}
	var value []byte
	kept := 0 // trim unescaped blanks at the end
	for i := 0; i < len(text); i++ {
		c, escaped := text[i], false
		if c == '\\' {
			if i++; i == len(text) {
				return "", errors.New("ends with a backslash")
			}
			c, escaped = text[i], true
			if i+1 < len(text) {
				if b, err := hex.DecodeString(text[i : i+2]); err == nil {
					c = b[0]
					i++
				}
			}
		}
		if value = append(value, c); escaped || c != ' ' {
			kept = len(value)
		}
	}
	if kept == 0 {
		return "", errors.New("is empty")
	}
	return escapeValue(string(value[:kept])), nil
}

// IssuerName returns the distinguished name of a certificate's issuer in the form of
// Identity.Subject; "" if it is too long.
func IssuerName(c *x509.Certificate) string { return subjectText(c.RawIssuer) }
