package inventory

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// anchorUsers holds the peers that CAs verify, by resource: the endpoints of each
// upstream, and the client populations of each listener.
type anchorUsers map[store.Ref][]anchorUser

// An anchorUser is an endpoint or a client population.
type anchorUser struct {
	endpoint string
	hosts    []string
	latest   string                        // fingerprint of the CA that verified this user last, or ""
	trusts   func(*certs.TrustBundle) bool // nil: the user trusts every bundle of its resource
}

func latest(uses []certs.AnchorUse) string {
	if len(uses) == 0 {
		return ""
	}
	return certs.FingerprintOf(uses[0].Anchor)
}

func (a anchorUsers) addListener(l *snapshot.Listener) {
	ref := store.Ref{Kind: adminv1.Kind_KIND_LISTENER, Name: l.Name}
	for _, p := range l.Populations() {
		a[ref] = append(a[ref], anchorUser{hosts: p.Hosts, latest: latest(p.VerifiedBy()), trusts: p.Trusts})
	}
}

// addEndpoint adds an endpoint, unless it takes no new connections.
func (a anchorUsers) addEndpoint(name string, e upstream.EndpointStatus) {
	if e.Draining {
		return
	}
	ref := store.Ref{Kind: adminv1.Kind_KIND_UPSTREAM, Name: name}
	a[ref] = append(a[ref], anchorUser{endpoint: snapshot.EndpointAddress(e), latest: latest(e.VerifiedBy)})
}

// evidence describes how each CA of a bundle has been used.
func (a anchorUsers) evidence(state *store.State, name string, b *certs.TrustBundle) []*adminv1.AnchorEvidence {
	needed := map[string][]*adminv1.AnchorUser{} // users by the fingerprint of the CA
	for ref := range state.Users(store.Ref{Kind: adminv1.Kind_KIND_TRUST_BUNDLE, Name: name}) {
		for _, u := range a[ref] {
			if u.trusts == nil || u.trusts(b) {
				needed[u.latest] = append(needed[u.latest], &adminv1.AnchorUser{Kind: ref.Kind, Name: ref.Name, Endpoint: u.endpoint, Hosts: u.hosts})
			}
		}
	}
	unknown := needed[""]
	var out []*adminv1.AnchorEvidence
	cas := b.Certificates()
	for i, e := range b.Evidence() {
		by := needed[certs.FingerprintOf(cas[i])]
		m := &adminv1.AnchorEvidence{
			SinceTime: timestamppb.New(e.Since), VerifiedCount: int64(e.Verified),
			NeededBy: by[:min(len(by), maxUsers)], NeededByCount: int32(len(by)),
			Unknown: unknown[:min(len(unknown), maxUsers)], UnknownCount: int32(len(unknown)),
		}
		if !e.Last.IsZero() {
			m.LastVerifiedTime = timestamppb.New(e.Last)
		}
		out = append(out, m)
	}
	return out
}
