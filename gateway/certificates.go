package gateway

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Certificates returns every certificate in use, soonest to expire first: our
// own, the CAs and revocation lists of trust bundles, and what the endpoints of
// upstreams last presented.
func (g *Gateway) Certificates() []*adminv1.CertificateInUse {
	snap, now := g.live.Load(), time.Now()
	users := snap.State().Users()
	var out []*adminv1.CertificateInUse
	add := func(use adminv1.CertificateUse, ref store.Ref, endpoint string, info *adminv1.CertificateInfo, usedBy []string) {
		out = append(out, &adminv1.CertificateInUse{
			Use: use, Name: ref.Name, Endpoint: endpoint, Info: info, UsedBy: usedBy,
			DaysLeft: daysLeft(info.GetNotAfter().AsTime(), now),
		})
	}
	for name, c := range snap.Certificates() {
		ref := store.Ref{Kind: adminv1.Kind_KIND_CERTIFICATE, Name: name}
		add(adminv1.CertificateUse_CERTIFICATE_USE_OWN, ref, "", snapshot.CertificateInfo(c.Info()), names(users[ref]))
	}
	for name, b := range snap.TrustBundles() {
		ref := store.Ref{Kind: adminv1.Kind_KIND_TRUST_BUNDLE, Name: name}
		for _, ca := range b.Infos() {
			add(adminv1.CertificateUse_CERTIFICATE_USE_TRUST, ref, "", snapshot.CertificateInfo(ca), names(users[ref]))
		}
		for _, crl := range b.CRLInfos() {
			add(adminv1.CertificateUse_CERTIFICATE_USE_CRL, ref, "", crlAsInfo(crl), names(users[ref]))
		}
	}
	for _, u := range snap.Upstreams() {
		ref := store.Ref{Kind: adminv1.Kind_KIND_UPSTREAM, Name: u.Name}
		for _, e := range u.Live.Status() {
			if e.PeerCertificate != nil && !e.Left {
				add(adminv1.CertificateUse_CERTIFICATE_USE_UPSTREAM, ref, endpointAddress(e), snapshot.CertificateInfo(*e.PeerCertificate), names([]store.Ref{ref}))
			}
		}
	}
	slices.SortFunc(out, func(a, b *adminv1.CertificateInUse) int {
		return cmp.Or(
			a.GetInfo().GetNotAfter().AsTime().Compare(b.GetInfo().GetNotAfter().AsTime()),
			cmp.Compare(a.GetUse(), b.GetUse()), cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetEndpoint(), b.GetEndpoint()),
		)
	})
	return out
}

// crlAsInfo describes a revocation list as far as a certificate's description
// has the words.
func crlAsInfo(c certs.CRLInfo) *adminv1.CertificateInfo {
	return snapshot.CertificateInfo(certs.Info{
		Subject: "revocation list of " + c.Issuer, Issuer: c.Issuer, NotBefore: c.ThisUpdate, NotAfter: c.NextUpdate, Warnings: c.Warnings,
	})
}

// daysLeft returns the whole days until t, rounded down: -1 on the day after.
func daysLeft(t, now time.Time) int32 {
	const day = 24 * time.Hour
	left := t.Sub(now)
	days := left / day
	if left < 0 && left%day != 0 {
		days--
	}
	return int32(days)
}

// names writes references as people read them: "listener web".
func names(refs []store.Ref) []string {
	var out []string
	for _, r := range refs {
		out = append(out, store.KindName(r.Kind)+" "+r.Name)
	}
	return out
}

// useName is a use as metrics label it: "own", "trust", "upstream", "crl".
func useName(u adminv1.CertificateUse) string {
	return strings.ToLower(strings.TrimPrefix(u.String(), "CERTIFICATE_USE_"))
}
