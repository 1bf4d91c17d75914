package probe

import (
	"context"
	"crypto/tls"
	"slices"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/keyfile"
)

// Alerts with which a server ends a handshake that has nothing in common.
const (
	alertHandshakeFailure     = 40
	alertInsufficientSecurity = 71
)

// refusedHello reports whether the endpoint answered the ClientHello with an
// alert for a missing parameter. The alert does not name the parameter.
func (t *trial) refusedHello() bool {
	switch t.reason {
	case certs.ReasonNoCommonCipher, certs.ReasonNoCommonGroup:
	default:
		return false
	}
	alert := t.firstBytes
	return len(alert) >= recordHeaderBytes+2 && alert[0] == recordAlert &&
		(alert[6] == alertHandshakeFailure || alert[6] == alertInsufficientSecurity)
}

// A search finds the parameter that a refused ClientHello lacked.
type search struct{ *trial }

// missing finds the parameter that the ClientHello lacked. It sends others that
// also offer parameters that crypto/tls does not support, until the endpoint
// answers one. No such handshake continues after the answer. It returns the
// reason and a diagnosis of the facts found.
func (t search) missing(ctx context.Context, d diagnosis) (certs.Reason, diagnosis) {
	ours, err := parseHello(t.sent)
	if err != nil {
		return t.reason, d
	}
	ctx, cancel := context.WithTimeout(ctx, retryTime)
	defer cancel()
	var schemes []uint16
	for _, s := range otherSchemes {
		schemes = append(schemes, s.ids...)
	}
	moreSchemes := func(h *hello) *hello { return h.offeringSchemes(schemes) }
	moreGroups := func(h *hello) *hello {
		return h.offering(extGroups, append(idsOf(otherGroups), allGroups(h)...))
	}
	moreSuites := func(h *hello) *hello { return h.offeringSuites(append(idsOf(otherSuites), everySuite()...)) }
	everything := moreSuites(moreGroups(moreSchemes(ours)))
	for _, h := range []*hello{moreSchemes(ours), moreGroups(ours), moreSuites(ours), everything, everything.upToTLS12()} {
		f, err := t.offer(ctx, h)
		if ctx.Err() != nil {
			return t.reason, d
		}
		if err == nil {
			return t.name(ctx, ours, f)
		}
	}
	d = newDiagnosis("%s has nothing in common with us (%s); it also refused a ClientHello with every cipher suite, group and signature algorithm that we know", t.where(), t.detail())
	return t.reason, d.advise("check the upstream's log for this connection: no change of what we offer made a difference")
}

// allGroups returns the groups of crypto/tls that a hello does not offer.
func allGroups(h *hello) []uint16 {
	offered := h.list(extGroups)
	var more []uint16
	for _, id := range slices.Concat(classic, []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024}) {
		if !slices.Contains(offered, uint16(id)) {
			more = append(more, uint16(id))
		}
	}
	return more
}

// name explains which unsupported parameter the endpoint chose.
func (t search) name(ctx context.Context, ours *hello, f *flight) (certs.Reason, diagnosis) {
	const needs = "%s supports nothing that we offer (%s): "
	kind, supported := keyfile.PublicKeyType(f.leaf)
	switch {
	case f.leaf != nil && !supported:
		return certs.ReasonNoCommonSignature, adviseKey(newDiagnosis(needs+"its certificate has a key of the type %s, which is not supported", t.where(), t.detail(), kind))
	case !slices.Contains(ours.suites, f.suite):
		name := suiteName(f.suite)
		if !slices.Contains(everySuite(), f.suite) {
			name = nameOf(otherSuites, f.suite)
		}
		d := newDiagnosis(needs+"when every cipher suite was offered, it chose %s, which is not supported", t.where(), t.detail(), name)
		if f.version >= tls.VersionTLS13 {
			return certs.ReasonNoCommonCipher, d.advise("enable TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384 or TLS_CHACHA20_POLY1305_SHA256 at the upstream: no setting here adds a suite to TLS 1.3")
		}
		return certs.ReasonNoCommonCipher, d.advise("enable TLS 1.3, or an ECDHE suite with AES-GCM or ChaCha20, at the upstream")
	case f.group != 0 && !slices.Contains(ours.list(extGroups), f.group):
		name := GroupName(tls.CurveID(f.group))
		if slices.ContainsFunc(otherGroups, func(p codePoint) bool { return p.id == f.group }) {
			name = nameOf(otherGroups, f.group)
		}
		return certs.ReasonNoCommonGroup, newDiagnosis(needs+"when every key-exchange group was offered, it chose %s, which is not supported", t.where(), t.detail(), name).
			advise("enable X25519, P-256, P-384 or P-521 at the upstream")
	}
	for _, s := range otherSchemes {
		if _, err := t.offer(ctx, ours.offeringSchemes(s.ids)); err == nil {
			d := newDiagnosis(needs+"it answers if we also offer signatures with %s, which are not supported", t.where(), t.detail(), s.name)
			return certs.ReasonNoCommonSignature, adviseKey(d)
		}
	}
	return t.reason, newDiagnosis("%s supports nothing that we offer (%s), and answers if we also offer signature algorithms and groups that are not supported", t.where(), t.detail()).
		advise("check the upstream's key, signature algorithms and groups, and its log for this connection")
}

func adviseKey(d diagnosis) diagnosis {
	return d.advise("have the upstream use a certificate with an RSA (rsaEncryption), ECDSA (P-256, P-384 or P-521) or Ed25519 key, signed with SHA-256 or better")
}
