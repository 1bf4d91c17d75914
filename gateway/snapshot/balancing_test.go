package snapshot

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func plainUpstream(name string) *adminv1.Upstream {
	return &adminv1.Upstream{
		Name: name, Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1", Weight: new(int32(3))}, {Address: "127.0.0.1:2"}},
		Transport: &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}},
	}
}

func hashes(k *adminv1.HashKey) *adminv1.Balancing {
	return &adminv1.Balancing{Policy: adminv1.BalancingPolicy_BALANCING_POLICY_CONSISTENT_HASH, Hash: k}
}

func byHeader(name string) *adminv1.HashKey {
	return &adminv1.HashKey{Kind: &adminv1.HashKey_Header{Header: name}}
}

func byCookie(name string) *adminv1.HashKey {
	return &adminv1.HashKey{Kind: &adminv1.HashKey_Cookie{Cookie: name}}
}

var byAddress = &adminv1.HashKey{Kind: &adminv1.HashKey_ClientAddress{ClientAddress: &adminv1.ClientAddressKey{}}}

func TestBalancingAndLimitsAreChecked(t *testing.T) {
	w := newTestbed(t)
	for _, test := range []struct {
		what, field string // "": no fault
		change      func(*adminv1.Upstream)
	}{
		{"no settings", "", func(u *adminv1.Upstream) {}},
		{"a policy", "", func(u *adminv1.Upstream) {
			u.Balancing = &adminv1.Balancing{Policy: adminv1.BalancingPolicy_BALANCING_POLICY_LEAST_REQUESTS, SlowStart: durationpb.New(time.Hour)}
		}},
		{"a policy of another version", "balancing.policy", func(u *adminv1.Upstream) { u.Balancing = &adminv1.Balancing{Policy: 99} }},
		{"a slow start above the maximum", "balancing.slow_start", func(u *adminv1.Upstream) {
			u.Balancing = &adminv1.Balancing{SlowStart: durationpb.New(time.Hour + 1)}
		}},
		{"a slow start of 0 s", "balancing.slow_start", func(u *adminv1.Upstream) { u.Balancing = &adminv1.Balancing{SlowStart: durationpb.New(0)} }},
		{"a hash", "", func(u *adminv1.Upstream) { u.Balancing = hashes(byAddress) }},
		{"a hash of a header", "", func(u *adminv1.Upstream) { u.Balancing = hashes(byHeader("X-Tenant")) }},
		{"a hash of a cookie", "", func(u *adminv1.Upstream) { u.Balancing = hashes(byCookie("session")) }},
		{"a hash policy without a key", "balancing.hash", func(u *adminv1.Upstream) { u.Balancing = hashes(nil) }},
		{"a hash without a field", "balancing.hash", func(u *adminv1.Upstream) { u.Balancing = hashes(&adminv1.HashKey{}) }},
		{"a hash that the policy does not use", "balancing.hash", func(u *adminv1.Upstream) { u.Balancing = &adminv1.Balancing{Hash: byAddress} }},
		{"a hash of a header without a name", "balancing.hash.header", func(u *adminv1.Upstream) { u.Balancing = hashes(byHeader("")) }},
		{"a hash of an invalid header name", "balancing.hash.header", func(u *adminv1.Upstream) { u.Balancing = hashes(byHeader("a b")) }},
		{"a hash of a framing header", "balancing.hash.header", func(u *adminv1.Upstream) { u.Balancing = hashes(byHeader("Content-Length")) }},
		{"a hash of a field that clients do not send", "balancing.hash.header", func(u *adminv1.Upstream) { u.Balancing = hashes(byHeader("X-Forwarded-For")) }},
		{"a hash of an invalid cookie name", "balancing.hash.cookie", func(u *adminv1.Upstream) { u.Balancing = hashes(byCookie("a=b")) }},
		{"a hash of a header with passthrough", "balancing.hash", func(u *adminv1.Upstream) {
			u.Transport, u.Balancing = &adminv1.Upstream_Passthrough{Passthrough: &adminv1.Passthrough{}}, hashes(byHeader("X-Tenant"))
		}},
		{"limits", "", func(u *adminv1.Upstream) {
			u.Limits = &adminv1.UpstreamLimits{Requests: 1_000_000, RequestsPerEndpoint: 1, Connections: 1, ConnectionsPerEndpoint: 1, Pending: 1_000_000, PendingTimeout: durationpb.New(1)}
		}},
		{"too many requests", "limits.requests", func(u *adminv1.Upstream) { u.Limits = &adminv1.UpstreamLimits{Requests: 1_000_001} }},
		{"too many requests to one endpoint", "limits.requests_per_endpoint", func(u *adminv1.Upstream) {
			u.Limits = &adminv1.UpstreamLimits{RequestsPerEndpoint: 1_000_001}
		}},
		{"too many connections", "limits.connections", func(u *adminv1.Upstream) { u.Limits = &adminv1.UpstreamLimits{Connections: 1_000_001} }},
		{"too many connections to one endpoint", "limits.connections_per_endpoint", func(u *adminv1.Upstream) {
			u.Limits = &adminv1.UpstreamLimits{ConnectionsPerEndpoint: 1_000_001}
		}},
		{"too many pending requests", "limits.pending", func(u *adminv1.Upstream) {
			u.Limits = &adminv1.UpstreamLimits{Requests: 1, Pending: 1_000_001}
		}},
		{"pending requests without a limit", "limits.pending", func(u *adminv1.Upstream) { u.Limits = &adminv1.UpstreamLimits{Pending: 1} }},
		{"a pending timeout without pending", "limits.pending_timeout", func(u *adminv1.Upstream) {
			u.Limits = &adminv1.UpstreamLimits{Requests: 1, PendingTimeout: durationpb.New(time.Second)}
		}},
		{"a pending timeout of 0 s", "limits.pending_timeout", func(u *adminv1.Upstream) {
			u.Limits = &adminv1.UpstreamLimits{Requests: 1, Pending: 1, PendingTimeout: durationpb.New(0)}
		}},
		{"an idle timeout", "", func(u *adminv1.Upstream) { u.Timeouts = &adminv1.UpstreamTimeouts{Idle: durationpb.New(time.Minute)} }},
		{"an idle timeout of 0 s", "timeouts.idle", func(u *adminv1.Upstream) { u.Timeouts = &adminv1.UpstreamTimeouts{Idle: durationpb.New(0)} }},
	} {
		u := plainUpstream("u")
		test.change(u)
		_, _, bad := w.try(store.Edit{Puts: puts(u)})
		faults := bad.Faults()
		switch {
		case test.field == "" && len(faults) > 0:
			t.Errorf("%s: %v", test.what, faults)
		case test.field != "" && (len(faults) != 1 || faults[0].Field != invalid.Path("r0."+test.field)):
			t.Errorf("%s: %v, want one at %s", test.what, faults, test.field)
		}
	}
}

func TestWarmConnectionsMustFitTheLimits(t *testing.T) {
	w := newTestbed(t)
	w.put(w.bundle("trust"))
	u := tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}})
	u.Pool = &adminv1.Pool{Warm: 5}
	for _, l := range []*adminv1.UpstreamLimits{{Connections: 4}, {ConnectionsPerEndpoint: 4}} {
		u.Limits = l
		if faults := w.refused(u); len(faults) != 1 || faults[0].Field != "r0.pool.warm" {
			t.Errorf("%v: %v", l, faults)
		}
	}
	u.Limits = &adminv1.UpstreamLimits{Connections: 5, ConnectionsPerEndpoint: 5}
	w.put(u)
}

// Balancing and limit settings reach the live upstream.
func TestBalancingAndLimitsAreLive(t *testing.T) {
	w := newTestbed(t)
	u := plainUpstream("u")
	u.Balancing = hashes(byCookie("session"))
	u.Timeouts = &adminv1.UpstreamTimeouts{Idle: durationpb.New(time.Minute)}
	u.Limits = &adminv1.UpstreamLimits{Connections: 3}
	w.put(u)
	live := w.snap.upstreams.Get("u").live
	if live.Hash() != (upstream.HashKey{Cookie: "session"}) || live.IdleTimeout() != time.Minute || !live.LimitsConnections() {
		t.Errorf("hash %+v, idle timeout %v", live.Hash(), live.IdleTimeout())
	}
	if s := live.Status(); s[0].Weight != 3 || s[1].Weight != 1 {
		t.Errorf("weights %d and %d", s[0].Weight, s[1].Weight)
	}
	u = proto.Clone(u).(*adminv1.Upstream)
	u.Limits = &adminv1.UpstreamLimits{Requests: 2}
	w.put(u)
	if next := w.snap.upstreams.Get("u").live; next == live || next.LimitsConnections() {
		t.Error("a change of the limits is not live")
	}
	live = w.snap.upstreams.Get("u").live
	u = proto.Clone(u).(*adminv1.Upstream)
	u.Labels = map[string]string{"a": "b"}
	if w.put(u); w.snap.upstreams.Get("u").live != live {
		t.Error("an unchanged upstream is built again")
	}
}

// An endpoint that is added to an upstream with traffic starts slowly.
func TestAddedEndpointStartsSlowly(t *testing.T) {
	w := newTestbed(t)
	u := plainUpstream("u")
	u.Balancing = &adminv1.Balancing{Policy: adminv1.BalancingPolicy_BALANCING_POLICY_RANDOM, SlowStart: durationpb.New(time.Hour)}
	u.Endpoints = u.Endpoints[:1]
	w.put(u)
	u = proto.Clone(u).(*adminv1.Upstream)
	u.Endpoints = append(u.Endpoints, &adminv1.Endpoint{Address: "127.0.0.1:2", Weight: new(int32(3))})
	w.put(u)
	const picks = 10_000
	n := 0
	for range picks {
		var turn upstream.Turn
		turn.Begin(w.snap.upstreams.Get("u").live, upstream.Key{})
		e, err := turn.Next(nil)
		if err != nil {
			t.Fatal(err)
		}
		if e.Address() == "127.0.0.1:2" {
			n++
		}
		turn.End()
	}
	if n < 700 || n > 1100 {
		t.Errorf("the new endpoint got %d of %d picks, want about a twentieth", n, picks)
	}
}

// Connections of a TCP listener have no headers: only a write of the listener gets the
// warning.
func TestTCPListenersWarnOfKeysThatTheyDoNotHave(t *testing.T) {
	w := newTestbed(t)
	for _, test := range []struct {
		hash *adminv1.HashKey
		p    adminv1.Protocol
		want bool
	}{
		{byHeader("X-Tenant"), adminv1.Protocol_PROTOCOL_TCP, true},
		{byCookie("session"), adminv1.Protocol_PROTOCOL_TCP, true},
		{byAddress, adminv1.Protocol_PROTOCOL_TCP, false},
		{byHeader("X-Tenant"), adminv1.Protocol_PROTOCOL_HTTP, false},
	} {
		u := plainUpstream("u")
		u.Balancing = hashes(test.hash)
		warnings := w.put(u, listener("l", "127.0.0.1:0", test.p, "u"))
		warned := len(warnings) == 1 && warnings[0].Field == "r1.upstream" && strings.Contains(warnings[0].Message, "chooses at random")
		if warned != test.want || !test.want && len(warnings) != 0 {
			t.Errorf("%v, %v: %v", test.hash, test.p, warnings)
		}
	}
}
