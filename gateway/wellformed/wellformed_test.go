package wellformed

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// field returns the wire bytes of an unknown field.
func field(number protowire.Number) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), 1)
}

func paths(m proto.Message, skip func(protoreflect.Message) bool) []string {
	var bad invalid.List
	Check(m.ProtoReflect(), "upstream", skip, &bad)
	var out []string
	for _, f := range bad.Faults() {
		out = append(out, string(f.Field))
	}
	slices.Sort(out)
	return out
}

func TestUnknownFieldsAreRefusedAtAnyDepth(t *testing.T) {
	tls, endpoint, wait := &adminv1.UpstreamTls{}, &adminv1.Endpoint{Address: "a:1", Weight: new(int32(-1))}, durationpb.New(1)
	tls.ProtoReflect().SetUnknown(append(field(99), field(99)...)) // the field occurs twice, but is reported once
	endpoint.ProtoReflect().SetUnknown(field(100))
	wait.ProtoReflect().SetUnknown(field(3))
	u := &adminv1.Upstream{
		Name:      "u",
		Endpoints: []*adminv1.Endpoint{{Address: "b:1"}, endpoint},
		Transport: &adminv1.Upstream_Tls{Tls: tls},
		Timeouts:  &adminv1.UpstreamTimeouts{Connect: wait},
		Balancing: &adminv1.Balancing{Policy: 77},
		OutlierDetection: &adminv1.OutlierDetection{
			HandshakeReasons: []adminv1.Reason{adminv1.Reason_REASON_EXPIRED, 500},
		},
	}
	u.ProtoReflect().SetUnknown(append(field(2000), protowire.AppendString(protowire.AppendTag(nil, 2001, protowire.BytesType), "x")...))
	want := []string{
		"upstream.2000", "upstream.2001", "upstream.balancing.policy", "upstream.endpoints[1].100", "upstream.endpoints[1].weight",
		"upstream.outlier_detection.handshake_reasons[1]", "upstream.timeouts.connect.3", "upstream.tls.99",
	}
	if got := paths(u, nil); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	skip := func(m protoreflect.Message) bool { _, ok := m.Interface().(*adminv1.UpstreamTls); return ok }
	if got := paths(u, skip); !slices.Equal(got, want[:len(want)-1]) {
		t.Errorf("without tls: %q", got)
	}
}

func TestValidMessageHasNoFaults(t *testing.T) {
	m := &adminv1.Resource{Kind: &adminv1.Resource_Route{Route: &adminv1.Route{Name: "r", Labels: map[string]string{"a": "b"}, Listeners: []string{"l"}}}}
	if got := paths(m, nil); got != nil {
		t.Errorf("faults %q", got)
	}
}

func TestFaultsAreBounded(t *testing.T) {
	m := &adminv1.Resource{}
	var raw []byte
	for n := range protowire.Number(10_000) {
		raw = append(raw, field(100+n)...)
	}
	m.ProtoReflect().SetUnknown(raw)
	if got := paths(m, nil); len(got) != maxFaults {
		t.Errorf("%d faults, want %d", len(got), maxFaults)
	}
}
