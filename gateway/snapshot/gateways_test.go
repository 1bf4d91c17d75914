package snapshot

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// The gateway of these tests has the label zone=a.

// applyTo returns the listener, route or upstream with a selector of gateways.
func applyTo[R store.Resource](selector string, r R) R {
	switch r := any(r).(type) {
	case *adminv1.Listener:
		r.Gateways = selector
	case *adminv1.Route:
		r.Gateways = selector
	case *adminv1.Upstream:
		r.Gateways = selector
	}
	return r
}

// otherGateways returns the fields with a warning that the resource is not live here.
func otherGateways(warnings []invalid.Warning) (fields []string) {
	for _, w := range warnings {
		if w.Code == "OTHER_GATEWAYS" {
			fields = append(fields, string(w.Field))
		}
	}
	return fields
}

func TestAListenerOfOtherGatewaysIsCheckedAndNotLive(t *testing.T) {
	w := newTestbed(t)
	warnings := w.put(applyTo("zone=a", listener("here", "127.0.0.1:1", tcp, "u")), applyTo("zone=b", listener("there", "127.0.0.1:1", tcp, "u")), plaintext("u", 1))
	if got := otherGateways(warnings); !slices.Equal(got, []string{"r1.gateways"}) {
		t.Errorf("warnings at %q: %v", got, warnings)
	}
	if len(w.snap.Listeners()) != 1 || w.snap.Listener("here") == nil || w.snap.Listener("there") != nil || w.snap.TCP("there") != nil {
		t.Errorf("listeners: %v", w.snap.Listeners())
	}
	if why := w.snap.State().Absent(store.Ref{Kind: adminv1.Kind_KIND_LISTENER, Name: "there"}); !strings.Contains(why, `only to gateways with "zone=b"`) {
		t.Error(why)
	}
	w.put(applyTo("zone=b", listener("here", "127.0.0.1:2", tcp, "u")), applyTo("zone!=b", listener("there", "127.0.0.1:1", tcp, "u")))
	if w.snap.TCP("here") != nil || w.snap.TCP("there") == nil {
		t.Error("the selectors have changed, and the live listeners have not")
	}
	for name, l := range map[string]*adminv1.Listener{
		"an address that overlaps at another gateway": applyTo("zone!=a", listener("new", "0.0.0.0:2", tcp, "u")),
		"a selector without a value":                  applyTo("zone", listener("new", "127.0.0.1:3", tcp, "u")),
		"another fault":                               applyTo("zone=b", listener("new", "no address", tcp, "u")),
	} {
		if faults := w.refused(l); len(faults) != 1 || !strings.HasPrefix(string(faults[0].Field), "r0.") {
			t.Errorf("%s: %v", name, faults)
		}
	}
	// The selector of a listener that keeps its address can cause an overlap.
	if faults := w.refused(applyTo("zone in (b,c)", listener("there", "127.0.0.1:2", tcp, "u"))); len(faults) != 1 {
		t.Errorf("%v", faults)
	}
}

func TestRoutesOfDifferentGatewaysAreNotAmbiguous(t *testing.T) {
	w := newTestbed(t)
	w.put(listener("front", "127.0.0.1:1", httpP, ""), plaintext("u", 1), plaintext("v", 2),
		applyTo("zone=a", forward("ra", nil, "front", "u")), applyTo("zone=b", forward("rb", nil, "front", "v")), applyTo("zone=c", forward("rc", nil, "front", "v")))
	if a := w.explain(&adminv1.ExplainRouteRequest{Listener: "front"}); a.GetRoute() != "ra" {
		t.Errorf("%v", a)
	}
	for _, r := range []*adminv1.Route{
		applyTo("zone in (c,d)", forward("rd", nil, "front", "v")), // ambiguous where zone=c, and not here
		applyTo("zone!=a", forward("rd", nil, "front", "v")),
		forward("rd", nil, "front", "v"),
	} {
		if faults := w.refused(r); faults[0].Field != "r0.match" {
			t.Errorf("%v: %v", r, faults)
		}
	}
	w.put(applyTo("zone=d", forward("ra", nil, "front", "u")))
	if a := w.explain(&adminv1.ExplainRouteRequest{Listener: "front"}); a.GetRoute() != "" || !strings.Contains(a.GetWhy(), "only to other gateways") {
		t.Errorf("%v", a)
	}
	w.put(applyTo("zone=a", forward("ra", nil, "front", "u")))
	if a := w.explain(&adminv1.ExplainRouteRequest{Listener: "front"}); a.GetRoute() != "ra" {
		t.Errorf("%v", a)
	}
}

func TestAnUpstreamOfOtherGatewaysTakesNoTraffic(t *testing.T) {
	w := newTestbed(t)
	w.put(listener("front", "127.0.0.1:1", httpP, "far"), listener("streams", "127.0.0.1:2", tcp, "far"), plaintext("near", 1), applyTo("zone=b", plaintext("far", 2)),
		forward("both", prefix("/both"), "front", "far", "near"))
	if _, ok := w.snap.Upstream("far"); ok || len(w.snap.Upstreams()) != 1 {
		t.Errorf("live: %v", w.snap.Upstreams())
	}
	a := w.explain(&adminv1.ExplainRouteRequest{Listener: "front", Path: "/both"})
	if len(a.GetUpstreams()) != 1 || a.GetUpstreams()[0].GetName() != "near" || a.GetUpstreams()[0].GetPercent() != 100 {
		t.Errorf("%v", a)
	}
	for _, l := range []string{"front", "streams"} {
		a := w.explain(&adminv1.ExplainRouteRequest{Listener: l})
		if a.GetAction() != adminv1.ExplainedAction_EXPLAINED_ACTION_REFUSE || !strings.Contains(a.GetWhy(), "only to other gateways") {
			t.Errorf("%v", a)
		}
	}
	if d := w.snap.HTTP("front").Default; d == nil || d.Forward.Backs.Pick() != nil {
		t.Errorf("the default of front: %v", d)
	}
	warnings := w.put(applyTo("zone=b", plaintext("near", 1)), forward("both", prefix("/b"), "front", "far", "near"))
	if !slices.ContainsFunc(warnings, func(w invalid.Warning) bool { return w.Code == "NO_EFFECT" && w.Field == "r1.forward.upstreams" }) {
		t.Errorf("%v", warnings)
	}
	w.put(plaintext("far", 2))
	if a := w.explain(&adminv1.ExplainRouteRequest{Listener: "streams"}); a.GetAction() != adminv1.ExplainedAction_EXPLAINED_ACTION_FORWARD {
		t.Errorf("%v", a)
	}
}

// The files of a resource may exist only at the gateways where it applies.
func TestFaultsAtOtherGatewaysAreNotProblems(t *testing.T) {
	w := newTestbed(t)
	missing := filepath.Join(t.TempDir(), "missing.pem")
	files := &adminv1.Certificate{Name: "files", Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{CertificatePath: missing, PrivateKeyPath: missing}}}
	there := applyTo("zone=b", listener("there", "127.0.0.1:1", httpP, ""))
	there.Tls = &adminv1.ServerTls{Certificates: []string{"files"}}
	up := applyTo("zone=b", tlsUpstream("up", &adminv1.UpstreamTls{Certificate: "files"}))
	state, err := store.Restore(1, []store.Resource{files, there, up, listener("here", "127.0.0.1:2", httpP, ""), applyTo("zone=b", forward("r", nil, "here", "up"))})
	if err != nil {
		t.Fatal(err)
	}
	w.snap = testCompiler().Restore(t.Context(), state)
	if p := w.snap.Problems(); len(p) != 1 || p[0].Ref.Name != "files" {
		t.Errorf("%v", p)
	}
	// A write of another resource is not refused because of these faults.
	w.put(plaintext("u", 1), listener("other", "127.0.0.1:3", httpP, "u"), forward("s", prefix("/s"), "here", "u"))
	// A write of the resource itself is refused.
	there = proto.Clone(there).(*adminv1.Listener)
	there.Timeouts = &adminv1.ListenerTimeouts{}
	if faults := w.refused(there); len(faults) != 1 || !strings.HasPrefix(string(faults[0].Field), "r0.tls") {
		t.Errorf("%v", faults)
	}
}
