package gateway

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// As predicted, streams end with their listener, or if their endpoint no longer verifies.
// They survive the deletion of their upstream, whose warm connections are closed.
func TestTheImpactOnStreams(t *testing.T) {
	ca := certstest.NewCA(t)
	revoked, client := ca.Server(t, "up.example"), ca.Client(t, "client")
	address := echo(t, ca, revoked)
	up := func(r *adminv1.Revalidation) *adminv1.Upstream {
		u := upstreamTo("up", address, r)
		u.GetTls().Certificate = "client"
		return u
	}
	closes := &adminv1.Revalidation{Action: adminv1.RevalidationAction_REVALIDATION_ACTION_CLOSE}
	weighted := up(nil)
	weighted.Endpoints[0].Weight = new(int32(3))
	warm := up(nil)
	warm.Pool = &adminv1.Pool{Warm: 2}
	for _, c := range []struct {
		name   string
		up     *adminv1.Upstream
		warm   uint64
		e      store.Edit
		impact *adminv1.Impact // without lost sessions
		ends   bool
	}{
		{"the listener is deleted", up(nil), 0, store.Edit{Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_LISTENER, Name: "tcp"}}},
			&adminv1.Impact{Listeners: []*adminv1.ListenerImpact{{Name: "tcp", ConnectionsDrained: 2}}}, true},
		{"the endpoint is revoked", up(&adminv1.Revalidation{Grace: durationpb.New(50 * time.Millisecond)}), 0, store.Edit{Puts: puts(bundle("corp", ca, ca.CRL(t, revoked.Leaf)))},
			&adminv1.Impact{Upstreams: []*adminv1.UpstreamImpact{{Name: "up", ConnectionsDrained: 2}}}, true},
		{"the endpoint is revoked, and action is CLOSE", up(closes), 0, store.Edit{Puts: puts(bundle("corp", ca, ca.CRL(t, revoked.Leaf)))},
			&adminv1.Impact{Upstreams: []*adminv1.UpstreamImpact{{Name: "up", ConnectionsClosed: 2}}}, true},
		{"the endpoint is revoked, and action is REPORT", up(&adminv1.Revalidation{Action: adminv1.RevalidationAction_REVALIDATION_ACTION_REPORT}), 0,
			store.Edit{Puts: puts(bundle("corp", ca, ca.CRL(t, revoked.Leaf)))}, &adminv1.Impact{}, false},
		{"the upstream is replaced", up(nil), 0, store.Edit{Puts: puts(weighted)}, &adminv1.Impact{Upstreams: []*adminv1.UpstreamImpact{{Name: "up"}}}, false},
		{"the upstream has warm connections", warm, 2, store.Edit{Puts: puts(weighted)},
			&adminv1.Impact{Upstreams: []*adminv1.UpstreamImpact{{Name: "up", ConnectionsClosed: 2}}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, "", func(o *Options) { o.DrainTimeout = 50 * time.Millisecond })
			g.put(bundle("corp", ca, ca.CRL(t)), c.up, tcpListener("tcp", "127.0.0.1:0"), tcpListener("other", "127.0.0.1:0"), inlineCertificate("client", client))
			ending := []*stream{dial(t, g.address("tcp")), dial(t, g.address("tcp"))}
			for _, s := range ending {
				s.echo(t, "before")
			}
			u, _ := g.live.Load().Upstream("up")
			eventually(t, "warm connections are ready", func() bool {
				w := u.Live.Status()[0].Warm
				return c.warm == 0 || w != nil && w.Ready == c.warm && u.Live.Status()[0].Open == 2+c.warm
			})
			e := c.e
			e.Impact, e.DryRun = true, true
			got := g.apply(e).Impact
			e.DryRun = false
			if answered := g.apply(e).Impact; !proto.Equal(got, answered) {
				t.Errorf("predicted %v, answered %v", got, answered)
			}
			for _, i := range got.GetUpstreams() {
				i.SessionsLost = 0
			}
			if !proto.Equal(got, c.impact) {
				t.Errorf("predicted %v", got)
			}
			for _, s := range ending {
				if !c.ends {
					s.echo(t, "after")
				} else if n, err := s.Read(make([]byte, 1)); err == nil {
					t.Errorf("read %d bytes", n)
				}
			}
		})
	}
}
