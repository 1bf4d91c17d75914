package gateway

import (
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/admin"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/telemetry"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// maxUsers is how many users of a certificate are listed.
const maxUsers = 100

// A certificateInUse is a certificate in use before it is described.
type certificateInUse struct {
	admin.CertificateKey
	ref  store.Ref
	info func() *adminv1.CertificateInfo
}

// certificatesInUse returns every certificate in use, soonest to expire first: the
// gateway's own, the CAs and revocation lists of trust bundles, and those that the
// endpoints of upstreams last presented.
func (g *Gateway) certificatesInUse(snap *snapshot.Snapshot) []certificateInUse {
	var out []certificateInUse
	add := func(use adminv1.CertificateUse, kind adminv1.Kind, name, endpoint, fingerprint string, end time.Time, info func() *adminv1.CertificateInfo) {
		out = append(out, certificateInUse{
			admin.CertificateKey{NotAfter: end.Unix(), Use: use, Name: name, Fingerprint: fingerprint, Endpoint: endpoint},
			store.Ref{Kind: kind, Name: name}, info,
		})
	}
	own := func(use adminv1.CertificateUse, kind adminv1.Kind, name, endpoint string, i certs.Info) {
		add(use, kind, name, endpoint, i.SHA256Fingerprint, i.NotAfter, func() *adminv1.CertificateInfo { return snapshot.CertificateInfo(i) })
	}
	for name, c := range snap.Certificates() {
		own(adminv1.CertificateUse_CERTIFICATE_USE_OWN, adminv1.Kind_KIND_CERTIFICATE, name, "", c.Info())
	}
	for name, b := range snap.TrustBundles() {
		for _, ca := range b.Infos() {
			own(adminv1.CertificateUse_CERTIFICATE_USE_TRUST, adminv1.Kind_KIND_TRUST_BUNDLE, name, "", ca)
		}
		for i, crl := range b.CRLInfos() {
			add(adminv1.CertificateUse_CERTIFICATE_USE_CRL, adminv1.Kind_KIND_TRUST_BUNDLE, name, "", strconv.Itoa(i), crl.NextUpdate,
				func() *adminv1.CertificateInfo { return crlAsInfo(crl) })
		}
	}
	if g.adminTCP != nil {
		const use, kind = adminv1.CertificateUse_CERTIFICATE_USE_ADMIN, adminv1.Kind_KIND_UNSPECIFIED
		own(use, kind, adminName, "", g.adminTCP.Certificate().Info())
		for _, ca := range g.adminTCP.Trust().Infos() {
			own(use, kind, adminName, "", ca)
		}
		for i, crl := range g.adminTCP.Trust().CRLInfos() {
			add(use, kind, adminName, "", strconv.Itoa(i), crl.NextUpdate, func() *adminv1.CertificateInfo { return crlAsInfo(crl) })
		}
	}
	for _, u := range snap.Upstreams() {
		for _, e := range u.Live.Status() {
			if e.PeerCertificate != nil && !e.Left {
				own(adminv1.CertificateUse_CERTIFICATE_USE_UPSTREAM, adminv1.Kind_KIND_UPSTREAM, u.Name, endpointAddress(e), *e.PeerCertificate)
			}
		}
	}
	slices.SortFunc(out, func(a, b certificateInUse) int { return a.Compare(b.CertificateKey) })
	return out
}

// An inUseList lists every certificate in use at one time, and the resources that
// use each. It is cached briefly, so that a client that reads many pages does not
// cause all certificates to be gathered and sorted for each page.
type inUseList struct {
	snap  *snapshot.Snapshot
	all   []certificateInUse
	users map[store.Ref][]store.Ref
}

// keepInUse is how long an inUseList is cached.
const keepInUse = 5 * time.Second

func (g *Gateway) newInUseList(snap *snapshot.Snapshot) *inUseList {
	return &inUseList{snap, g.certificatesInUse(snap), snap.State().Users()}
}

// certificateList returns a new list for a first page. For a further page it
// returns the list of the earlier pages, if that is still cached.
func (g *Gateway) certificateList(further bool) *inUseList {
	snap := g.live.Load()
	if kept := g.inUse.Load(); further && kept != nil && kept.snap == snap {
		return kept
	}
	list := g.newInUseList(snap)
	if further || len(list.all) > 1000 { // there will be another page
		g.inUse.Store(list)
		time.AfterFunc(keepInUse, func() { g.inUse.CompareAndSwap(list, nil) })
	}
	return list
}

// EachCertificate calls yield with each certificate in use after the key, soonest
// to expire first, until yield returns false. yield owns the messages.
func (g *Gateway) EachCertificate(after *admin.CertificateKey, yield func(admin.CertificateKey, *adminv1.CertificateInUse) bool) {
	g.certificateList(after != nil).each(after, yield)
}

func (list *inUseList) each(after *admin.CertificateKey, yield func(admin.CertificateKey, *adminv1.CertificateInUse) bool) {
	now := time.Now()
	all, users := list.all, list.users
	if after != nil {
		all = all[sort.Search(len(all), func(i int) bool { return all[i].Compare(*after) > 0 }):]
	}
	listed := map[store.Ref][]*adminv1.ResourceRef{} // shared by the CAs of a bundle
	for _, c := range all {
		by, ok := listed[c.ref]
		if !ok {
			by = usedBy(users[c.ref])
			listed[c.ref] = by
		}
		m := &adminv1.CertificateInUse{
			Use: c.Use, Name: c.Name, Endpoint: c.Endpoint, Info: c.info(), UsedBy: by, UsedByCount: int32(len(users[c.ref])),
		}
		if c.Use == adminv1.CertificateUse_CERTIFICATE_USE_UPSTREAM {
			m.UsedBy, m.UsedByCount = usedBy([]store.Ref{c.ref}), 1
		}
		m.DaysLeft = daysLeft(m.GetInfo().GetNotAfter().AsTime(), now)
		if !yield(c.CertificateKey, m) {
			return
		}
	}
}

// Certificates returns every certificate in use, soonest to expire first.
func (g *Gateway) Certificates() []*adminv1.CertificateInUse {
	var out []*adminv1.CertificateInUse
	g.newInUseList(g.live.Load()).each(nil, func(_ admin.CertificateKey, c *adminv1.CertificateInUse) bool {
		out = append(out, c)
		return true
	})
	return out
}

// expiries returns when each certificate in use expires, soonest first.
func (g *Gateway) expiries() []telemetry.Expiry {
	var out []telemetry.Expiry
	for _, c := range g.certificatesInUse(g.live.Load()) {
		out = append(out, telemetry.Expiry{Use: useName(c.Use), Name: c.Name, Endpoint: c.Endpoint, NotAfter: time.Unix(c.NotAfter, 0)})
	}
	return out
}

// adminName stands for the admin service in place of a resource's name. No resource
// can have this name.
const adminName = "(admin)"

// crlAsInfo describes a revocation list with those fields of a certificate's
// description that apply to it.
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

// usedBy lists the first maxUsers of the users.
func usedBy(refs []store.Ref) []*adminv1.ResourceRef {
	var out []*adminv1.ResourceRef
	for _, r := range refs[:min(len(refs), maxUsers)] {
		out = append(out, &adminv1.ResourceRef{Kind: r.Kind, Name: r.Name})
	}
	return out
}

// useName returns a use as the metrics label it: "own", "trust", "upstream", "crl".
func useName(u adminv1.CertificateUse) string {
	return strings.ToLower(strings.TrimPrefix(u.String(), "CERTIFICATE_USE_"))
}
