package certs

import (
	"crypto/x509"
	"crypto/x509/pkix"
	encoding "encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

// A crlScope selects the certificates of the issuer that a list covers, from
// the extension issuingDistributionPoint (RFC 5280, section 5.2.5). The zero
// crlScope covers all of them.
type crlScope struct {
	onlyLeaves, onlyCAs bool
	// points are distribution point URIs. If not nil, a certificate must name one
	// of them.
	points []string
}

func (s crlScope) covers(c *x509.Certificate) bool {
	if s.onlyLeaves && c.IsCA || s.onlyCAs && !c.IsCA {
		return false
	}
	return s.points == nil || slices.ContainsFunc(s.points, func(p string) bool { return slices.Contains(c.CRLDistributionPoints, p) })
}

// String describes the scope, or returns "" if it covers every certificate.
func (s crlScope) String() string {
	var parts []string
	if s.onlyLeaves {
		parts = append(parts, "certificates of end entities")
	}
	if s.onlyCAs {
		parts = append(parts, "certificates of CAs")
	}
	if s.points != nil {
		parts = append(parts, "certificates with the distribution point "+nameList(s.points))
	}
	return strings.Join(parts, ", ")
}

// The last arcs of extension identifiers, which all begin with 2.5.29 (RFC
// 5280, sections 5.2 and 5.3).
const (
	extIssuerAltName     = 18
	extCRLNumber         = 20
	extReason            = 21
	extHoldInstruction   = 23
	extInvalidityDate    = 24
	extDeltaCRLIndicator = 27
	extDistributionPoint = 28
	extCertificateIssuer = 29
	extAuthorityKeyID    = 35
	extFreshestCRL       = 46
)

const maxDistributionPoints = 100

// Reasons to reject a list.
var (
	errDeltaCRL       = errors.New("is a delta list, which has only the changes since another list: want the complete list (RFC 5280 section 5.2.4)")
	errIndirectCRL    = errors.New("is an indirect list, which also revokes certificates of other issuers: want one list from each issuer (RFC 5280 section 5.2.5)")
	errSomeReasons    = errors.New("covers only some revocation reasons: want a list that covers all of them (RFC 5280 section 5.2.5)")
	errAttributes     = errors.New("covers attribute certificates, which TLS does not use")
	errMalformedScope = errors.New("has a malformed issuingDistributionPoint (RFC 5280 section 5.2.5)")
	errNoURI          = errors.New("is for a distribution point that is not a URI, so it cannot be compared with those in the certificates")
	errManyURIs       = fmt.Errorf("is for more than %d distribution points", maxDistributionPoints)
	errUnknownEntry   = errors.New("has an entry with an unknown critical extension, so it must not be used (RFC 5280 section 5.3)")
)

// certificateExtension returns the last number of an identifier that begins
// with 2.5.29, or -1.
func certificateExtension(id encoding.ObjectIdentifier) int {
	if len(id) == 4 && id[0] == 2 && id[1] == 5 && id[2] == 29 {
		return id[3]
	}
	return -1
}

// parseScope rejects lists that this package cannot evaluate.
func parseScope(extensions []pkix.Extension) (crlScope, error) {
	var scope crlScope
	for _, e := range extensions {
		var err error
		switch certificateExtension(e.Id) {
		case extDeltaCRLIndicator:
			err = errDeltaCRL
		case extDistributionPoint:
			scope, err = parseDistributionPoint(e.Value)
		case extIssuerAltName, extCRLNumber, extAuthorityKeyID, extFreshestCRL:
		default:
			if e.Critical {
				err = fmt.Errorf("has the unknown critical extension %s, so it must not be used (RFC 5280 section 5.2)", safetext.Printable(e.Id.String(), 100))
			}
		}
		if err != nil {
			return crlScope{}, err
		}
	}
	return scope, nil
}

func parseDistributionPoint(der []byte) (scope crlScope, err error) {
	input := cryptobyte.String(der)
	var idp, point cryptobyte.String
	var hasPoint, attributes, indirect bool
	tag := func(n uint8) asn1.Tag { return asn1.Tag(n).ContextSpecific() }
	if !input.ReadASN1(&idp, asn1.SEQUENCE) || !input.Empty() ||
		!idp.ReadOptionalASN1(&point, &hasPoint, tag(0).Constructed()) ||
		!readFlag(&idp, tag(1), &scope.onlyLeaves) ||
		!readFlag(&idp, tag(2), &scope.onlyCAs) {
		return scope, errMalformedScope
	}
	if idp.PeekASN1Tag(tag(3)) {
		return scope, errSomeReasons
	}
	if !readFlag(&idp, tag(4), &indirect) || !readFlag(&idp, tag(5), &attributes) || !idp.Empty() {
		return scope, errMalformedScope
	}
	switch {
	case indirect:
		return scope, errIndirectCRL
	case attributes:
		return scope, errAttributes
	case hasPoint:
		scope.points, err = parsePoints(point)
	}
	return scope, err
}

// readFlag reads a BOOLEAN DEFAULT FALSE under a context tag.
func readFlag(s *cryptobyte.String, tag asn1.Tag, out *bool) bool {
	var value cryptobyte.String
	var present bool
	if !s.ReadOptionalASN1(&value, &present, tag) {
		return false
	}
	*out = present && len(value) == 1 && value[0] != 0
	return !present || len(value) == 1
}

// parsePoints returns the URIs of a DistributionPointName.
func parsePoints(point cryptobyte.String) ([]string, error) {
	var names cryptobyte.String
	if !point.ReadASN1(&names, asn1.Tag(0).Constructed().ContextSpecific()) || !point.Empty() {
		return nil, errNoURI
	}
	var points []string
	for !names.Empty() {
		var name cryptobyte.String
		var tag asn1.Tag
		if !names.ReadAnyASN1(&name, &tag) {
			return nil, errMalformedScope
		}
		if tag != asn1.Tag(6).ContextSpecific() {
			continue
		}
		if len(points) == maxDistributionPoints {
			return nil, errManyURIs
		}
		points = append(points, string(name))
	}
	if points == nil {
		return nil, errNoURI
	}
	return points, nil
}

// checkEntryExtensions rejects extensions that change the meaning of an entry.
func checkEntryExtensions(extensions cryptobyte.String) error {
	for !extensions.Empty() {
		var e cryptobyte.String
		var id encoding.ObjectIdentifier
		var critical bool
		if !extensions.ReadASN1(&e, asn1.SEQUENCE) || !e.ReadASN1ObjectIdentifier(&id) ||
			e.PeekASN1Tag(asn1.BOOLEAN) && !e.ReadASN1Boolean(&critical) || !e.SkipASN1(asn1.OCTET_STRING) || !e.Empty() {
			return errMalformedCRL
		}
		switch certificateExtension(id) {
		case extCertificateIssuer:
			return errIndirectCRL
		case extReason, extHoldInstruction, extInvalidityDate:
		default:
			if critical {
				return errUnknownEntry
			}
		}
	}
	return nil
}
