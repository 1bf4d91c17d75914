// A write with fields that the gateway does not know, such as a condition from
// a newer client, is rejected with the path of each such field, at any depth,
// and changes nothing.

package e2e

import (
	"slices"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// newer returns m with a field from a newer API version, encoded as a newer
// client would send it.
func newer[M proto.Message](m M) M {
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 900, protowire.VarintType), 1))
	return m
}

func TestUnknownFieldsAreRejected(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	web := func() *adminv1.Upstream { return plainUpstream("web", "127.0.0.1:9") }
	g.apply(web())
	before := g.getStatus().GetRevision()

	depth := web()
	depth.Endpoints[0] = newer(depth.Endpoints[0])
	member := web() // an unknown member of the oneof "transport"
	member.Transport = nil
	value := web()
	value.Balancing = &adminv1.Balancing{Policy: 99}
	negative := web()
	negative.Pool = &adminv1.Pool{MaxIdle: new(int32(-1))}
	both := newer(web()) // plus a fault of another kind
	both.Endpoints[0].Address = "no port"

	apply := func(req *adminv1.ApplyRequest) error { _, err := g.admin.Apply(longContext(t), req); return err }
	put := func(u *adminv1.Upstream, o *adminv1.WriteOptions) error {
		_, err := g.admin.PutUpstream(longContext(t), &adminv1.PutUpstreamRequest{Upstream: u, Options: o})
		return err
	}
	resource := func(u *adminv1.Upstream) *adminv1.Resource {
		return &adminv1.Resource{Kind: &adminv1.Resource_Upstream{Upstream: u}}
	}
	for name, c := range map[string]struct {
		err  error
		want []string
	}{
		"a field of a resource":      {put(newer(web()), nil), []string{"upstream.900"}},
		"a field further down":       {put(depth, nil), []string{"upstream.endpoints[0].900"}},
		"a member of a oneof":        {put(newer(member), nil), []string{"upstream.900"}},
		"a value of an enum":         {put(value, nil), []string{"upstream.balancing.policy"}},
		"a negative number":          {put(negative, nil), []string{"upstream.pool.max_idle"}},
		"with all other faults":      {put(both, nil), []string{"upstream.900", "upstream.endpoints[0].address"}},
		"an option":                  {put(web(), newer(&adminv1.WriteOptions{})), []string{"options.900"}},
		"a value of an option":       {put(web(), &adminv1.WriteOptions{RequireProbe: 9}), []string{"options.require_probe"}},
		"a field of the request":     {apply(newer(&adminv1.ApplyRequest{})), []string{"900"}},
		"another kind of resource":   {apply(&adminv1.ApplyRequest{Resources: []*adminv1.Resource{newer(&adminv1.Resource{})}}), []string{"resources[0]", "resources[0].900"}},
		"in one of many resources":   {apply(&adminv1.ApplyRequest{Resources: []*adminv1.Resource{resource(web()), resource(named(newer(web()), "b"))}}), []string{"resources[1].upstream.900"}},
		"a condition of a delete":    {remove(t, g, newer(&adminv1.DeleteUpstreamRequest{Name: "web"})), []string{"900"}},
		"a filter of a drain":        {drain(t, g, newer(&adminv1.DrainConnectionsRequest{Upstream: "web"})), []string{"900"}},
		"an upstream that is probed": {probeOf(t, g, newer(web())), []string{"upstream.900"}},
	} {
		if status.Code(c.err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, c.err)
			continue
		}
		var got []string
		for _, d := range status.Convert(c.err).Details() {
			if bad, ok := d.(*errdetails.BadRequest); ok {
				for _, v := range bad.GetFieldViolations() {
					got = append(got, v.GetField())
				}
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: faults at %q, want %q", name, got, c.want)
		}
	}
	if after := g.getStatus().GetRevision(); after != before {
		t.Errorf("revision %d, want %d", after, before)
	}
}

func named(u *adminv1.Upstream, name string) *adminv1.Upstream { u.Name = name; return u }

func remove(t *testing.T, g *gateway, req *adminv1.DeleteUpstreamRequest) error {
	_, err := g.admin.DeleteUpstream(longContext(t), req)
	return err
}

func drain(t *testing.T, g *gateway, req *adminv1.DrainConnectionsRequest) error {
	_, err := g.diagnostics.DrainConnections(longContext(t), req)
	return err
}

func probeOf(t *testing.T, g *gateway, u *adminv1.Upstream) error {
	_, err := g.diagnostics.ProbeUpstream(longContext(t), &adminv1.ProbeUpstreamRequest{Target: &adminv1.ProbeUpstreamRequest_Upstream{Upstream: u}})
	return err
}
