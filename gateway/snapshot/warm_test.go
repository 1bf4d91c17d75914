package snapshot

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestInvalidWarmPoolsAreRefused(t *testing.T) {
	w := newTestbed(t)
	w.put(w.bundle("trust"))
	sound := tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}})
	sound.Pool = &adminv1.Pool{Warm: 1000, IdleTimeout: durationpb.New(time.Second), MaxAge: durationpb.New(time.Second)}
	w.put(sound)
	for _, test := range []struct {
		what, field string
		spoil       func(*adminv1.Upstream)
	}{
		{"too many", "pool.warm", func(u *adminv1.Upstream) { u.Pool.Warm = 1001 }},
		{"plaintext", "pool.warm", func(u *adminv1.Upstream) {
			u.Transport = &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}
		}},
		{"a server name taken from the request", "pool.warm", func(u *adminv1.Upstream) {
			u.GetTls().ServerName, u.GetTls().ServerNameSource = "", adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST
		}},
		{"a PROXY protocol header for each client", "pool.warm", func(u *adminv1.Upstream) {
			u.SendProxyProtocol = adminv1.SendProxyProtocol_SEND_PROXY_PROTOCOL_V1
		}},
		{"the server speaks first", "pool.warm", func(u *adminv1.Upstream) { u.Tcp = &adminv1.UpstreamTcp{ServerSpeaksFirst: true} }},
		{"pool.max_age below the minimum", "pool.max_age", func(u *adminv1.Upstream) { u.Pool.MaxAge = durationpb.New(999 * time.Millisecond) }},
		{"pool.idle_timeout below the minimum", "pool.idle_timeout", func(u *adminv1.Upstream) { u.Pool.IdleTimeout = durationpb.New(time.Millisecond) }},
	} {
		u := proto.Clone(sound).(*adminv1.Upstream)
		test.spoil(u)
		if faults := w.refused(u); len(faults) != 1 || faults[0].Field != invalid.Path("r0."+test.field) {
			t.Errorf("%s: %v", test.what, faults)
		}
		u.Pool.Warm = 0
		w.put(u) // the upstream has no other fault
	}
}

// A write that leaves warm connections unused gets a warning.
func TestUnusedWarmConnectionsCauseAWarning(t *testing.T) {
	warm := func() *adminv1.Upstream {
		u := tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}})
		u.Pool = &adminv1.Pool{Warm: 8}
		return u
	}
	cold := tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}})
	web := func(upstream string) *adminv1.Listener { return listener("web", "127.0.0.1:1", httpP, upstream) }
	stream := listener("stream", "127.0.0.1:2", tcp, "u")
	of := &adminv1.Route{Name: "r", Listeners: []string{"web"}, Action: &adminv1.Route_Forward{Forward: &adminv1.Forward{
		Upstreams: []*adminv1.WeightedUpstream{{Name: "other", Weight: new(int32(1))}, {Name: "u", Weight: new(int32(1))}}}}}
	other := tlsUpstream("other", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}})
	for _, test := range []struct {
		what        string
		first, then []store.Resource
		want        []string
	}{
		{"the upstream and its listener", nil, []store.Resource{warm(), web("u")}, []string{"r0.pool.warm"}},
		{"the upstream", []store.Resource{cold, web("u")}, []store.Resource{warm()}, []string{"r0.pool.warm"}},
		{"the listener", []store.Resource{warm()}, []store.Resource{web("u")}, []string{"r0.upstream"}},
		{"the route", []store.Resource{warm(), other, web("other")}, []store.Resource{of}, []string{"r0.forward.upstreams[1].name"}},
		{"an unrelated resource", []store.Resource{warm(), web("u")}, []store.Resource{other}, nil},
		{"the upstream again", []store.Resource{warm(), web("u")}, []store.Resource{warm()}, []string{"r0.pool.warm"}},
		{"an upstream without listeners", nil, []store.Resource{warm()}, nil},
		{"also used by a TCP listener", []store.Resource{cold, stream}, []store.Resource{warm(), web("u")}, nil},
		{"pool.warm is not set", nil, []store.Resource{cold, web("u")}, nil},
	} {
		w := newTestbed(t)
		w.put(w.bundle("trust"))
		if len(test.first) > 0 {
			w.put(test.first...)
		}
		var got []string
		for _, warning := range w.put(test.then...) {
			got = append(got, string(warning.Field))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: warned of %q, want %q", test.what, got, test.want)
		}
	}
}
