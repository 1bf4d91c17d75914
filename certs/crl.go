package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/drawbridge-gateway/drawbridge/certs/keyfile"
	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

const (
	maxCRLBytes = 64 << 20 // bytes of one source; 100,000 entries are about 7 MB of PEM
	maxCRLs     = 1000     // lists in one bundle
	maxIssuers  = 64       // results of signature checks kept for one list
	crlPEM      = "X509 CRL"
)

// A CRLSource is the input for revocation lists of a trust bundle.
type CRLSource struct {
	// Field is the Fault.Field of a fault in Data, such as "crls[0].pem".
	Field string
	// Data is one or more lists in PEM, or one in DER.
	Data []byte
}

// CRLInfo describes a revocation list for display.
type CRLInfo struct {
	Issuer                 string
	ThisUpdate, NextUpdate time.Time
	// Revoked is the number of certificates it lists.
	Revoked int
	// Warnings describe valid but unusual properties.
	Warnings []string
}

// A crl is a revocation list (RFC 5280, section 5). It caches the results of
// signature checks; everything else is immutable.
type crl struct {
	list  *x509.RevocationList // the parsed list, without its entries
	scope crlScope
	// revoked holds the serial numbers. Its keys contain no pointers, so that the
	// garbage collector need not scan 100,000 entries.
	revoked map[serial]struct{}

	mu     sync.Mutex
	signed map[[32]byte]bool // results by the SHA-256 of the issuer's certificate
}

// A serial is a certificate's serial number: its length and the contents of
// the DER integer. A number longer than the 20 bytes that RFC 5280 allows is
// stored as 255 and a digest.
type serial [21]byte

func serialOf(contents []byte) (s serial) {
	if len(contents) > len(s)-1 {
		sum := sha256.Sum256(contents)
		s[0] = 255
		copy(s[1:], sum[:])
		return s
	}
	s[0] = byte(len(contents))
	copy(s[1:], contents)
	return s
}

// parseCRLs reads one or more lists in PEM, or one in DER.
func parseCRLs(data []byte) ([]*crl, error) {
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return nil, errors.New("is empty: want a revocation list in PEM or DER")
	case len(data) > maxCRLBytes:
		return nil, fmt.Errorf("is %d bytes long: at most %d are read", len(data), maxCRLBytes)
	case keyfile.IsDER(data):
		l, err := parseCRL(data)
		if err != nil {
			return nil, err
		}
		return []*crl{l}, nil
	}
	var lists []*crl
	for rest := data; ; {
		block, next, err := keyfile.NextBlock(rest)
		if err != nil {
			return nil, keyfile.AfterEntries(len(lists), "revocation list", err)
		}
		if block == nil {
			break
		}
		rest = next
		if strings.Contains(block.Type, "PRIVATE KEY") {
			return nil, errors.New("holds a private key: want only revocation lists; remove the key from this file")
		}
		if block.Type != crlPEM {
			return nil, fmt.Errorf("holds a block of type %q: want only %q%s", safetext.Printable(block.Type, 60), crlPEM, keyfile.Advice(block.Type))
		}
		if len(lists) == maxCRLs {
			return nil, fmt.Errorf("holds more than %d revocation lists", maxCRLs)
		}
		l, err := parseCRL(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("revocation list %d %w", len(lists)+1, err)
		}
		lists = append(lists, l)
	}
	if len(lists) == 0 {
		return nil, errors.New("holds no PEM block: want text that begins with -----BEGIN X509 CRL-----")
	}
	return lists, nil
}

var errMalformedCRL = errors.New("is malformed: it is not a CertificateList (RFC 5280)")

// crlExtensions is the tag of a list's extensions.
var crlExtensions = asn1.Tag(0).Constructed().ContextSpecific()

// parseCRL parses one list in DER. crypto/x509 parses everything except the
// entries, which it would keep at some 300 bytes each.
func parseCRL(der []byte) (*crl, error) {
	input := cryptobyte.String(der)
	var outer, signed, revoked cryptobyte.String
	if !input.ReadASN1(&outer, asn1.SEQUENCE) || !input.Empty() || !outer.ReadASN1Element(&signed, asn1.SEQUENCE) {
		return nil, errMalformedCRL
	}
	tbs := signed
	if !tbs.ReadASN1(&tbs, asn1.SEQUENCE) {
		return nil, errMalformedCRL
	}
	head := tbs
	v1 := !tbs.PeekASN1Tag(asn1.INTEGER)
	if !v1 && !tbs.SkipASN1(asn1.INTEGER) || !tbs.SkipASN1(asn1.SEQUENCE) || !tbs.SkipASN1(asn1.SEQUENCE) || !skipTime(&tbs) {
		return nil, errMalformedCRL
	}
	if !skipTime(&tbs) {
		return nil, errors.New("does not say when the next one is due (nextUpdate, RFC 5280 section 5.1.2.5)")
	}
	head = head[:len(head)-len(tbs)]
	if !tbs.ReadOptionalASN1(&revoked, nil, asn1.SEQUENCE) {
		return nil, errMalformedCRL
	}
	if rest := tbs; !rest.SkipOptionalASN1(crlExtensions) || !rest.Empty() || v1 && !tbs.Empty() {
		return nil, errMalformedCRL
	}
	list, err := parseWithoutEntries(v1, head, tbs, outer)
	if err != nil {
		return nil, err
	}
	l := &crl{list: list, signed: make(map[[32]byte]bool)}
	if l.scope, err = parseScope(list.Extensions); err != nil {
		return nil, err
	}
	if l.revoked, err = parseEntries(revoked); err != nil {
		return nil, err
	}
	list.Raw, list.RawTBSRevocationList = nil, bytes.Clone(signed)
	return l, nil
}

// parseWithoutEntries calls crypto/x509 to parse a list with the same head and
// extensions but without entries. A version 1 list, which `openssl ca` writes
// if no extensions are configured, gets the version that crypto/x509 requires.
func parseWithoutEntries(v1 bool, head, extensions, signature []byte) (*x509.RevocationList, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			if v1 {
				b.AddASN1Int64(1)
			}
			b.AddBytes(head)
			b.AddBytes(extensions)
		})
		b.AddBytes(signature)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, errMalformedCRL
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("cannot be parsed: %s", safetext.Printable(err.Error(), 200))
	}
	return list, nil
}

func skipTime(s *cryptobyte.String) bool {
	return s.PeekASN1Tag(asn1.UTCTime) && s.SkipASN1(asn1.UTCTime) ||
		s.PeekASN1Tag(asn1.GeneralizedTime) && s.SkipASN1(asn1.GeneralizedTime)
}

// parseEntries returns the serial numbers of the entries.
func parseEntries(entries cryptobyte.String) (map[serial]struct{}, error) {
	n := 0
	for rest := entries; !rest.Empty(); n++ {
		if !rest.SkipASN1(asn1.SEQUENCE) {
			return nil, errMalformedCRL
		}
	}
	revoked := make(map[serial]struct{}, n)
	for !entries.Empty() {
		var entry, number, extensions cryptobyte.String
		if !entries.ReadASN1(&entry, asn1.SEQUENCE) || !entry.ReadASN1(&number, asn1.INTEGER) || !isMinimal(number) ||
			!skipTime(&entry) || !entry.ReadOptionalASN1(&extensions, nil, asn1.SEQUENCE) || !entry.Empty() {
			return nil, errMalformedCRL
		}
		if err := checkEntryExtensions(extensions); err != nil {
			return nil, err
		}
		revoked[serialOf(number)] = struct{}{}
	}
	return revoked, nil
}

// isMinimal reports whether an integer has the encoding that DER requires. A
// lookup would never find any other encoding.
func isMinimal(n []byte) bool {
	switch {
	case len(n) == 0:
		return false
	case len(n) == 1:
		return true
	}
	return !(n[0] == 0 && n[1] < 0x80 || n[0] == 0xff && n[1] >= 0x80)
}

// signedBy reports whether a certificate may sign lists and its key signed
// this list. The result is cached: checking a long list takes milliseconds.
func (l *crl) signedBy(issuer *x509.Certificate) bool {
	key := sha256.Sum256(issuer.Raw)
	l.mu.Lock()
	defer l.mu.Unlock()
	good, known := l.signed[key]
	if !known {
		if len(l.signed) == maxIssuers {
			clear(l.signed)
		}
		good = l.list.CheckSignatureFrom(issuer) == nil
		l.signed[key] = good
	}
	return good
}

// lists reports whether a serial number is revoked.
func (l *crl) lists(number *big.Int) bool {
	var b cryptobyte.Builder
	b.AddASN1BigInt(number)
	der, err := b.Bytes()
	if err != nil {
		return true // the number is invalid, so its status is unknown
	}
	var contents cryptobyte.String
	if s := cryptobyte.String(der); !s.ReadASN1(&contents, asn1.INTEGER) {
		return true
	}
	_, revoked := l.revoked[serialOf(contents)]
	return revoked
}

// isCurrent reports whether the list is valid at now.
func (l *crl) isCurrent(now time.Time) bool {
	return !now.Before(l.list.ThisUpdate) && !now.After(l.list.NextUpdate)
}

func (l *crl) issuer() string {
	return safetext.Printable(nameText(l.list.RawIssuer, l.list.Issuer), maxText)
}

// info describes the list. certs are the certificates of its bundle.
func (l *crl) info(certs []*x509.Certificate, now time.Time) CRLInfo {
	info := CRLInfo{
		Issuer:     l.issuer(),
		ThisUpdate: l.list.ThisUpdate,
		NextUpdate: l.list.NextUpdate,
		Revoked:    len(l.revoked),
	}
	add := func(format string, args ...any) { info.Warnings = append(info.Warnings, fmt.Sprintf(format, args...)) }
	switch {
	case now.After(l.list.NextUpdate):
		add("it is outdated: the next one was due on %s; certificates that need it are rejected", l.list.NextUpdate.UTC().Format(time.RFC3339))
	case now.Before(l.list.ThisUpdate):
		add("it is not valid before %s; until then, certificates that need it are rejected", l.list.ThisUpdate.UTC().Format(time.RFC3339))
	}
	named := slices.DeleteFunc(slices.Clone(certs), func(c *x509.Certificate) bool { return string(c.RawSubject) != string(l.list.RawIssuer) })
	switch {
	case len(named) == 0:
		add("its issuer is not in the bundle: it applies only to certificates issued by an intermediate that peers send")
	case !slices.ContainsFunc(named, l.signedBy):
		add("it names %s as its issuer, but was not signed by the key of that CA: it does not apply to certificates that this CA issued", describeName(named[0]))
	}
	if s := l.scope.String(); s != "" {
		add("it is only for %s", s)
	}
	return info
}
