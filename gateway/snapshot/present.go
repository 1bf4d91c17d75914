package snapshot

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// maxListed bounds how many CAs of a bundle are described one by one.
const maxListed = 100

// Present returns a copy of a resource to show to clients. It omits private keys,
// passphrases, passwords and archives that hold keys, and adds the details of
// certificates that the snapshot holds.
func (s *Snapshot) Present(r store.Resource) store.Resource {
	switch r := r.(type) {
	case *adminv1.Certificate:
		// Only the public fields are copied, by name, so that a field added later
		// does not leak a secret.
		shown := &adminv1.Certificate{Name: r.Name, Labels: r.Labels, Etag: r.Etag, Revision: r.Revision}
		switch src := r.Source.(type) {
		case *adminv1.Certificate_Pem:
			shown.Source = &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{CertificateChain: src.Pem.GetCertificateChain()}}
		case *adminv1.Certificate_Pkcs12:
			shown.Source = &adminv1.Certificate_Pkcs12{Pkcs12: &adminv1.CertificatePkcs12{}}
		case *adminv1.Certificate_Files:
			shown.Source = src
		}
		shown = proto.Clone(shown).(*adminv1.Certificate)
		if c := s.certificates.Get(r.GetName()); c != nil && c.live != nil {
			shown.Info = CertificateInfo(c.live.Info())
		}
		return shown
	case *adminv1.TrustBundle:
		shown := proto.Clone(r).(*adminv1.TrustBundle)
		if b := s.bundles.Get(r.GetName()); b != nil && b.trust != nil {
			shown.Info = bundleInfo(b)
		}
		return shown
	}
	shown := proto.Clone(r).(store.Resource)
	if u, ok := shown.(*adminv1.Upstream); ok {
		for _, c := range []*adminv1.ProxyCredentials{u.GetVia().GetHttpConnect().GetCredentials(), u.GetVia().GetSocks5().GetCredentials()} {
			if c != nil {
				c.Password = ""
			}
		}
	}
	return shown
}

func bundleInfo(b *bundle) *adminv1.TrustBundleInfo {
	info := &adminv1.TrustBundleInfo{Count: int32(b.trust.Count())}
	for _, l := range b.trust.CRLInfos() {
		info.Crls = append(info.Crls, &adminv1.CrlInfo{
			Issuer: l.Issuer, ThisUpdate: timestamppb.New(l.ThisUpdate), NextUpdate: timestamppb.New(l.NextUpdate),
			Revoked: int32(l.Revoked), Warnings: l.Warnings,
		})
	}
	if b.msg.GetSystem() != nil {
		return info
	}
	for i, c := range b.trust.Infos() {
		if i == maxListed {
			break
		}
		info.Certificates = append(info.Certificates, CertificateInfo(c))
	}
	return info
}

// TLSVersion returns the API's form of a version. An unknown version is
// TLS_VERSION_UNSPECIFIED.
func TLSVersion(v uint16) adminv1.TlsVersion {
	for out, version := range versions {
		if version == v {
			return out
		}
	}
	return adminv1.TlsVersion_TLS_VERSION_UNSPECIFIED
}

// CertificateInfo returns the API's form of a description.
func CertificateInfo(i certs.Info) *adminv1.CertificateInfo {
	info := &adminv1.CertificateInfo{
		Subject:           i.Subject,
		Sans:              i.SANs,
		Issuer:            i.Issuer,
		Serial:            i.Serial,
		Sha256Fingerprint: i.SHA256Fingerprint,
		NotBefore:         timestamppb.New(i.NotBefore),
		NotAfter:          timestamppb.New(i.NotAfter),
		KeyType:           i.KeyType,
		KeyUsages:         i.KeyUsages,
		ChainLength:       int32(i.ChainLength),
		Warnings:          i.Warnings,
	}
	for _, f := range i.Findings {
		info.Findings = append(info.Findings, adminv1.CertificateFinding(adminv1.CertificateFinding_value["CERTIFICATE_FINDING_"+string(f)]))
	}
	return info
}
