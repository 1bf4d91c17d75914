package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

// maxPins bounds the pins of one list.
const maxPins = 100

// ParsePins reads SHA-256 digests of public keys (of the SubjectPublicKeyInfo,
// RFC 7469 section 2.4) in base64, with or without the prefix "sha256/" that
// curl uses. The error is Faults with the fields "[0]", "[1]"….
func ParsePins(pins []string) ([][32]byte, error) {
	var bad Faults
	if len(pins) > maxPins {
		bad.add("", "holds %d pins: at most %d are allowed", len(pins), maxPins)
		return nil, bad
	}
	var sums [][32]byte
	for i, pin := range pins {
		sum, problem := parsePin(pin)
		if problem != "" {
			bad.add(fmt.Sprintf("[%d]", i), "%s", problem)
			continue
		}
		sums = append(sums, sum)
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	return sums, nil
}

func parsePin(pin string) (sum [32]byte, problem string) {
	const want = "want the base64 of a SHA-256, 44 characters"
	text, named := strings.CutPrefix(pin, "sha256/")
	if named && len(text) != base64.StdEncoding.EncodedLen(len(sum)) { // the digest may itself start with a slash
		text = strings.TrimPrefix(text, "/")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	switch {
	case text == "":
		return sum, "is empty: " + want
	case err == nil && len(raw) == len(sum):
		return [32]byte(raw), ""
	case isHexSum(text):
		return sum, fmt.Sprintf("is in hexadecimal: %s; these bytes in base64 are %s", want, base64OfHex(text))
	case err == nil:
		return sum, fmt.Sprintf("%q holds %d bytes: %s", safetext.Printable(pin, 60), len(raw), want)
	}
	return sum, fmt.Sprintf("%q is not base64: %s", safetext.Printable(pin, 60), want)
}

// isHexSum reports whether text is a digest in hexadecimal, with or without the
// colons that openssl prints.
func isHexSum(text string) bool {
	raw, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	return err == nil && len(raw) == sha256.Size
}

func base64OfHex(text string) string {
	raw, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(raw)
}

// pinOf returns the pin of a certificate's key.
func pinOf(c *x509.Certificate) [32]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// checkPins returns nil if the chain contains a pinned key.
func checkPins(pins [][32]byte, chain []*x509.Certificate) *VerifyError {
	if len(pins) == 0 {
		return nil
	}
	for _, c := range chain {
		if slices.Contains(pins, pinOf(c)) {
			return nil
		}
	}
	leaf := pinOf(chain[0])
	return &VerifyError{
		Reason: ReasonPinMismatch,
		Detail: fmt.Sprintf("no key in the chain of %s is pinned: the pin of its leaf is %s",
			describeName(chain[0]), base64.StdEncoding.EncodeToString(leaf[:])),
	}
}
