package snapshot

import (
	"bytes"
	"errors"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A certificate is a Certificate resource and the live object built from it.
type certificate struct {
	msg    *adminv1.Certificate
	live   *certs.Certificate // nil while the resource is down
	digest Digest             // digest of the files that live was parsed from
	down   string
	notes  notes
}

// reusable reports whether msg has the same inputs as c.
func (c *certificate) reusable(msg *adminv1.Certificate) bool {
	return c != nil && c.live != nil && sameInputs(c.msg, msg)
}

func (j *job) certificate(msg *adminv1.Certificate) *certificate {
	s := j.scope(msg)
	prev := j.prev.certificates.Get(msg.GetName())
	next := &certificate{msg: msg}
	files := filesOf(msg)
	if prev.reusable(msg) && (len(files) == 0 || !s.written()) {
		next.live, next.digest, next.notes = prev.live, prev.digest, prev.notes
		s.reuse(next.notes)
		s.close()
		return unlessSame(prev, next, prev.msg == msg)
	}

	if m := j.material.certificates[msg.GetName()]; m == nil || !sameInputs(m.msg, msg) {
		j.need(s.ref)
	} else {
		next.live, next.digest = m.live, m.digest
		if m.digest != (Digest{}) && prev.reusable(msg) && prev.digest == m.digest {
			next.live = prev.live // another edit has read the same files in the meantime
		}
		s.Merge(&m.found)
	}
	if next.notes, next.down = s.notes(), s.close(); next.down != "" {
		next.live = nil
	}
	return next
}

// The fields of the faults of certs.NewCertificate.
const (
	chainField      = "certificate_chain"
	keyField        = "private_key"
	pkcs12Field     = "pkcs12"
	passphraseField = "passphrase"
)

// certificateSource returns the parts that a certificate is parsed from, and the field
// of each part in the message.
func (s *reading) certificateSource(msg *adminv1.Certificate, read map[invalid.Path][]byte) (src certs.CertificateSource, at map[string]invalid.Path) {
	switch from := msg.GetSource().(type) {
	case *adminv1.Certificate_Pem:
		at = map[string]invalid.Path{chainField: "pem.certificate_chain", keyField: "pem.private_key", passphraseField: "pem.passphrase"}
		src.Chain, src.Key = []byte(from.Pem.GetCertificateChain()), []byte(from.Pem.GetPrivateKey())
		src.Passphrase = []byte(from.Pem.GetPassphrase())
	case *adminv1.Certificate_Pkcs12:
		at = map[string]invalid.Path{chainField: "pkcs12.data", pkcs12Field: "pkcs12.data", passphraseField: "pkcs12.passphrase"}
		src.PKCS12, src.Passphrase = from.Pkcs12.GetData(), []byte(from.Pkcs12.GetPassphrase())
		if len(src.PKCS12) == 0 {
			s.Add(at[pkcs12Field], "must be set")
		}
	case *adminv1.Certificate_Files:
		at = map[string]invalid.Path{chainField: "files.certificate_path", keyField: "files.private_key_path", passphraseField: "files.passphrase_path"}
		src.Chain, src.Key, src.KeyInChain = read[at[chainField]], read[at[keyField]], true
		src.Passphrase = trimLineBreak(read[at[passphraseField]])
	default:
		s.Add("pem", "pem, pkcs12 or files must be set")
	}
	return src, at
}

// trimLineBreak removes the line break that editors and echo append.
func trimLineBreak(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
}

// addCertificateFaults reports faults at the fields that the parts came from.
func (s *reading) addCertificateFaults(at map[string]invalid.Path, err error) {
	var faults certs.Faults
	if !errors.As(err, &faults) {
		s.Add(at[chainField], "%v", err)
		return
	}
	for _, f := range faults {
		field, ok := at[f.Field]
		if !ok {
			field = at[chainField]
		}
		s.Add(field, "%s", f.Problem)
	}
}

// A bundle is a TrustBundle resource and the live object built from it.
type bundle struct {
	msg    *adminv1.TrustBundle
	trust  *certs.TrustBundle // nil while the resource is down
	digest Digest             // digest of the files that trust was parsed from
	down   string
	notes  notes
}

// reusable reports whether msg has the same inputs as b.
func (b *bundle) reusable(msg *adminv1.TrustBundle) bool {
	return b != nil && b.trust != nil && sameInputs(b.msg, msg)
}

func (j *job) bundle(msg *adminv1.TrustBundle) *bundle {
	s := j.scope(msg)
	prev := j.prev.bundles.Get(msg.GetName())
	next := &bundle{msg: msg}
	files := filesOf(msg)
	if prev.reusable(msg) && (len(files) == 0 && msg.GetSystem() == nil || !s.written()) {
		next.trust, next.digest, next.notes = prev.trust, prev.digest, prev.notes
		s.reuse(next.notes)
		s.close()
		return unlessSame(prev, next, prev.msg == msg)
	}

	if m := j.material.bundles[msg.GetName()]; m == nil || !sameInputs(m.msg, msg) {
		j.need(s.ref)
	} else {
		next.trust, next.digest = m.trust, m.digest
		if m.trust != nil && prev.reusable(msg) && prev.trust.Equal(m.trust) {
			next.trust = prev.trust // another edit has read the same files in the meantime
		} else if m.trust != nil && prev != nil && prev.trust != nil && prev.trust != m.trust {
			m.trust.Inherit(prev.trust)
		}
		s.Merge(&m.found)
	}
	if next.notes, next.down = s.notes(), s.close(); next.down != "" {
		next.trust = nil
	}
	return next
}

// trust parses a bundle. It returns nil if there are faults.
func (s *reading) trust(msg *adminv1.TrustBundle, read map[invalid.Path][]byte) *certs.TrustBundle {
	src := certs.TrustSource{CRLs: s.crls(msg, read)}
	switch from := msg.GetSource().(type) {
	case *adminv1.TrustBundle_Pem:
		src.Field, src.Certificates = "pem", []byte(from.Pem)
	case *adminv1.TrustBundle_File:
		src.Field, src.Certificates = "file", read["file"]
	case *adminv1.TrustBundle_System:
		src.Field = "system"
	default:
		s.Add("pem", "pem, file or system must be set")
	}
	if s.Len() > 0 {
		return nil
	}
	var trust *certs.TrustBundle
	var err error
	if msg.GetSystem() != nil {
		trust, err = certs.SystemTrustBundle(src.CRLs...)
	} else {
		trust, err = certs.NewTrustBundle(src)
	}
	var faults certs.Faults
	switch {
	case errors.As(err, &faults):
		addFaults(&s.List, "", faults)
		return nil
	case err != nil:
		s.Add(invalid.Path(src.Field), "%v", err)
		return nil
	}
	s.warnOfTrust(invalid.Path(src.Field), msg, trust)
	return trust
}

// crls returns the revocation lists of a bundle.
func (s *reading) crls(msg *adminv1.TrustBundle, read map[invalid.Path][]byte) []certs.CRLSource {
	var out []certs.CRLSource
	for i, c := range msg.GetCrls() {
		switch from := c.GetSource().(type) {
		case *adminv1.Crl_Pem:
			out = append(out, certs.CRLSource{Field: string(crlAt(i).Field("pem")), Data: []byte(from.Pem)})
		case *adminv1.Crl_File:
			at := crlAt(i).Field("file")
			out = append(out, certs.CRLSource{Field: string(at), Data: read[at]})
		default:
			s.Add(crlAt(i), "pem or file must be set")
		}
	}
	return out
}

// warnOfTrust adds warnings about a bundle, at most maxTrustWarnings of them.
func (s *reading) warnOfTrust(at invalid.Path, msg *adminv1.TrustBundle, trust *certs.TrustBundle) {
	count := 0
	warn := func(p invalid.Path, subject, warning string, code certs.Finding) {
		if count++; count <= maxTrustWarnings {
			s.AddWarning(invalid.Warning{Field: p, Message: subject + ": " + warning, Code: warnCertificate, Finding: string(code)})
		}
	}
	if msg.GetSystem() == nil { // the operator cannot change the system's roots here
		for _, ca := range trust.Infos() {
			for i, w := range ca.Warnings {
				warn(at, ca.Subject, w, ca.Findings[i])
			}
		}
	}
	for _, l := range trust.CRLInfos() {
		for _, w := range l.Warnings {
			warn("crls", l.Issuer, w, "")
		}
	}
	if count > maxTrustWarnings {
		s.Warn(warnMore, at, "and %d more warnings; the resource's info lists them", count-maxTrustWarnings)
	}
}

// maxTrustWarnings bounds the warnings about one bundle.
const maxTrustWarnings = 20
