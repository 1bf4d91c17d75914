package inventory

import (
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/admin"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// An AdminTLS is the TLS of the admin API over TCP.
type AdminTLS interface {
	Certificate() *certs.Certificate // the certificate presented to callers
	Trust() *certs.TrustBundle       // the CAs of callers' certificates
}

// An Inventory lists the certificates in use. Its methods may be called
// concurrently.
type Inventory struct {
	live  func() *snapshot.Snapshot
	admin AdminTLS             // nil: no admin API over TCP
	list  atomic.Pointer[list] // nil if none is cached
}

// New returns an inventory of the certificates that the live snapshot and the admin
// API use. admin is nil if the admin API does not use TLS.
func New(live func() *snapshot.Snapshot, admin AdminTLS) *Inventory {
	return &Inventory{live: live, admin: admin}
}

// maxUsers is how many users of a certificate are listed.
const maxUsers = 100

// An inUse is a certificate in use before it is described.
type inUse struct {
	admin.CertificateKey
	ref      store.Ref
	info     func() *adminv1.CertificateInfo // slow, so it is called only for listed certificates
	evidence func() *adminv1.AnchorEvidence  // slow too; describes the use of a CA in a trust bundle; nil for others
}

// gather returns every certificate in use, soonest to expire first: the gateway's
// own, the CAs and revocation lists of trust bundles, and the last certificates
// that endpoints presented.
func (v *Inventory) gather(snap *snapshot.Snapshot) []inUse {
	var g gathering
	users := anchorUsers{}
	for _, l := range snap.Listeners() {
		users.addListener(l)
	}
	for name, c := range snap.Certificates() {
		g.certificate(name, c)
	}
	for name, b := range snap.TrustBundles() {
		first := len(g.found)
		g.bundle(name, b)
		evidence := sync.OnceValue(func() []*adminv1.AnchorEvidence { return users.evidence(snap.State(), name, b) })
		for i := range b.Count() {
			g.found[first+i].evidence = func() *adminv1.AnchorEvidence { return evidence()[i] }
		}
	}
	g.adminService(v.admin)
	for _, u := range snap.Upstreams() {
		for _, e := range u.Live.Status() {
			users.addEndpoint(u.Name, e)
			g.endpoint(u.Name, e)
		}
	}
	slices.SortFunc(g.found, func(a, b inUse) int { return a.Compare(b.CertificateKey) })
	return g.found
}

// A list holds every certificate in use at one time, and the resources that
// use each. It is cached briefly, so that a client that reads many pages does not
// cause all certificates to be gathered and sorted for each page.
type list struct {
	snap *snapshot.Snapshot
	all  []inUse
}

// keepList is how long a list is cached.
const keepList = 5 * time.Second

func (v *Inventory) newList(snap *snapshot.Snapshot) *list {
	return &list{snap, v.gather(snap)}
}

// listFor returns a new list for a first page. For a further page it
// returns the list of the earlier pages, if that is still cached.
func (v *Inventory) listFor(furtherPage bool) *list {
	snap := v.live()
	if cached := v.list.Load(); furtherPage && cached != nil && cached.snap == snap {
		return cached
	}
	l := v.newList(snap)
	if furtherPage || len(l.all) > 1000 { // the list needs further pages
		v.list.Store(l)
		time.AfterFunc(keepList, func() { v.list.CompareAndSwap(l, nil) })
	}
	return l
}

// EachCertificate calls yield with each certificate in use after the key, soonest
// to expire first, until yield returns false. yield owns the messages.
func (v *Inventory) EachCertificate(after *admin.CertificateKey, yield func(admin.CertificateKey, *adminv1.CertificateInUse) bool) {
	v.listFor(after != nil).each(after, yield)
}

func (l *list) each(after *admin.CertificateKey, yield func(admin.CertificateKey, *adminv1.CertificateInUse) bool) {
	now := time.Now()
	all, state := l.all, l.snap.State()
	if after != nil {
		all = all[sort.Search(len(all), func(i int) bool { return all[i].Compare(*after) > 0 }):]
	}
	listed := map[store.Ref][]*adminv1.ResourceRef{} // shared by the CAs of a bundle
	for _, c := range all {
		by, ok := listed[c.ref]
		if !ok {
			by = usedBy(state, c.ref)
			listed[c.ref] = by
		}
		m := &adminv1.CertificateInUse{
			Use: c.Use, Name: c.Name, Endpoint: c.Endpoint, Info: c.info(), UsedBy: by, UsedByCount: int32(state.UserCount(c.ref)),
		}
		if c.evidence != nil {
			m.Evidence = c.evidence()
		}
		if c.Use == adminv1.CertificateUse_CERTIFICATE_USE_UPSTREAM {
			m.UsedBy, m.UsedByCount = []*adminv1.ResourceRef{{Kind: c.ref.Kind, Name: c.ref.Name}}, 1
		}
		m.DaysLeft = daysLeft(m.GetInfo().GetNotAfter().AsTime(), now)
		if !yield(c.CertificateKey, m) {
			return
		}
	}
}

// Certificates returns every certificate in use, soonest to expire first.
func (v *Inventory) Certificates() []*adminv1.CertificateInUse {
	var out []*adminv1.CertificateInUse
	v.newList(v.live()).each(nil, func(_ admin.CertificateKey, c *adminv1.CertificateInUse) bool {
		out = append(out, c)
		return true
	})
	return out
}

// Expiries calls yield once for each resource and endpoint with certificates in use,
// with the time at which the first of them expires. use is "own", "trust", "upstream",
// "crl" or "admin".
func (v *Inventory) Expiries(yield func(use, name, endpoint string, notAfter time.Time)) {
	of := func(use adminv1.CertificateUse, name, endpoint string, ends ...time.Time) {
		if len(ends) > 0 {
			yield(useName(use), name, endpoint, slices.MinFunc(ends, time.Time.Compare))
		}
	}
	bundle := func(cas, crls adminv1.CertificateUse, name string, b *certs.TrustBundle) {
		of(cas, name, "", b.Ends()...)
		of(crls, name, "", b.CRLEnds()...)
	}
	snap := v.live()
	for name, c := range snap.Certificates() {
		of(adminv1.CertificateUse_CERTIFICATE_USE_OWN, name, "", c.Leaf().NotAfter)
	}
	for name, b := range snap.TrustBundles() {
		bundle(adminv1.CertificateUse_CERTIFICATE_USE_TRUST, adminv1.CertificateUse_CERTIFICATE_USE_CRL, name, b)
	}
	if v.admin != nil {
		const use = adminv1.CertificateUse_CERTIFICATE_USE_ADMIN
		b := v.admin.Trust()
		of(use, adminName, "", slices.Concat([]time.Time{v.admin.Certificate().Leaf().NotAfter}, b.Ends(), b.CRLEnds())...)
	}
	for _, u := range snap.Upstreams() {
		ends := map[string][]time.Time{}
		for _, e := range u.Live.Counts() {
			if len(e.PeerChain) > 0 && !e.Left {
				address := snapshot.EndpointAddress(e)
				ends[address] = append(ends[address], e.PeerChain[0].NotAfter)
			}
		}
		for address, all := range ends {
			of(adminv1.CertificateUse_CERTIFICATE_USE_UPSTREAM, u.Name, address, all...)
		}
	}
}

// adminName stands for the admin service instead of a resource's name. No resource
// can have this name.
const adminName = "(admin)"

// crlAsInfo describes a revocation list with the applicable fields of a
// certificate's description.
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

// usedBy lists the first maxUsers resources that refer to ref.
func usedBy(state *store.State, ref store.Ref) []*adminv1.ResourceRef {
	var out []*adminv1.ResourceRef
	for user := range state.Users(ref) {
		if len(out) == maxUsers {
			break
		}
		out = append(out, &adminv1.ResourceRef{Kind: user.Kind, Name: user.Name})
	}
	return out
}

// useName returns the metrics label of a use.
func useName(u adminv1.CertificateUse) string {
	return strings.ToLower(strings.TrimPrefix(u.String(), "CERTIFICATE_USE_"))
}
