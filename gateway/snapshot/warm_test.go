package snapshot

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestWarmConnectionsAreRefusedWhereTheyCannotWork(t *testing.T) {
	w := newWorld(t)
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
		{"a name that comes with the client", "pool.warm", func(u *adminv1.Upstream) {
			u.GetTls().ServerName, u.GetTls().ServerNameSource = "", adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST
		}},
		{"a client that is announced", "pool.warm", func(u *adminv1.Upstream) {
			u.SendProxyProtocol = adminv1.SendProxyProtocol_SEND_PROXY_PROTOCOL_V1
		}},
		{"the server speaks first", "pool.warm", func(u *adminv1.Upstream) { u.Tcp = &adminv1.UpstreamTcp{ServerSpeaksFirst: true} }},
		{"too young to be used", "pool.max_age", func(u *adminv1.Upstream) { u.Pool.MaxAge = durationpb.New(999 * time.Millisecond) }},
		{"idle for too short", "pool.idle_timeout", func(u *adminv1.Upstream) { u.Pool.IdleTimeout = durationpb.New(time.Millisecond) }},
	} {
		u := proto.Clone(sound).(*adminv1.Upstream)
		test.spoil(u)
		if faults := w.refused(u); len(faults) != 1 || faults[0].Field != invalid.Path("r0."+test.field) {
			t.Errorf("%s: %v", test.what, faults)
		}
		u.Pool.Warm = 0
		w.put(u) // nothing else is wrong with it
	}
}
