package snapshot

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A change of what an upstream requires of its endpoints does not replace the live object.
func TestARequirementIsReplacedInPlace(t *testing.T) {
	w := newTestbed(t)
	u := tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"t"}, ServerName: "a.example"})
	w.put(w.bundle("t"), w.bundle("t2"), w.client("c"), u)
	revise := func(change func(*adminv1.UpstreamTls)) *adminv1.Upstream {
		c := proto.Clone(u).(*adminv1.Upstream)
		change(c.GetTls())
		return c
	}
	zero := int32(0)
	for _, c := range []struct {
		what       string
		change     func(*adminv1.UpstreamTls)
		live, need bool // whether the live object or the requirement changes
	}{
		{"no change", func(*adminv1.UpstreamTls) {}, false, false},
		{"an anchor", func(t *adminv1.UpstreamTls) { t.TrustBundles = []string{"t", "t2"} }, false, true},
		{"the depth", func(t *adminv1.UpstreamTls) { t.VerifyDepth = &zero }, false, true},
		{"the verified name", func(t *adminv1.UpstreamTls) { t.VerifyName = "b.example" }, false, true},
		{"the names", func(t *adminv1.UpstreamTls) { t.SubjectAltNames = []string{"DNS:b.example"} }, false, true},
		{"a pin", func(t *adminv1.UpstreamTls) { t.SpkiPins = []string{"BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="} }, false, true},
		{"the mode", func(t *adminv1.UpstreamTls) { t.Verification = adminv1.Verification_VERIFICATION_REPORT_ONLY }, false, true},
		{"the grace", func(t *adminv1.UpstreamTls) {
			t.Revalidation = &adminv1.Revalidation{Grace: durationpb.New(time.Minute)}
		}, false, false},
		{"the SNI", func(t *adminv1.UpstreamTls) { t.ServerName = "b.example" }, true, true},
		{"our certificate", func(t *adminv1.UpstreamTls) { t.Certificate = "c" }, true, false},
		{"a version", func(t *adminv1.UpstreamTls) { t.MinVersion = adminv1.TlsVersion_TLS_VERSION_1_3 }, true, false},
		{"the sessions", func(t *adminv1.UpstreamTls) { t.SessionReuse = new(bool) }, true, false},
	} {
		w.put(u)
		w.snap.Require(new(Snapshot))
		first := w.snap.upstreams.Get("u")
		before := w.snap
		w.put(revise(c.change))
		next := w.snap.upstreams.Get("u")
		if got := next.live != first.live; got != c.live {
			t.Errorf("%s: live object replaced: %v, want %v", c.what, got, c.live)
		}
		if got := next.requires != first.requires; got != c.need {
			t.Errorf("%s: requirement replaced: %v, want %v", c.what, got, c.need)
		}
		if !c.live && (next.verifier != first.verifier || first.verifier.Requirements() != first.requires) {
			t.Errorf("%s: the requirement is in force before the snapshot is live", c.what)
		}
		w.snap.Require(before)
		if next.verifier.Requirements() != next.requires || next.tracker.Peers().Policy() != next.policy {
			t.Errorf("%s: the requirement is not in force", c.what)
		}
		if changed := w.snap.Changed(before); (len(changed) > 0) != (c.live || c.need) {
			t.Errorf("%s: upstreams to probe: %v", c.what, changed)
		}
	}
}

// A probe of a planned change verifies with the planned requirement.
func TestAProbeVerifiesWithThePlannedRequirement(t *testing.T) {
	w := newTestbed(t)
	u := tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"t"}, ServerName: "a.example"})
	w.put(w.bundle("t"), u)
	u = proto.Clone(u).(*adminv1.Upstream)
	u.GetTls().VerifyName = "b.example"
	w.put(u)
	if o := w.snap.Endpoints(t.Context(), "u", "")[0].Target.Client.Options(); o.VerifyName != "b.example" {
		t.Errorf("the probe verifies %q", o.VerifyName)
	}
	if o := w.snap.upstreams.Get("u").live.Endpoints()[0].Client(0).Options(); o.VerifyName != "" {
		t.Errorf("traffic verifies %q before the change is live", o.VerifyName)
	}
}

func TestRevalidationIsChecked(t *testing.T) {
	w := newTestbed(t)
	w.put(w.bundle("t"))
	for _, c := range []struct {
		r    *adminv1.Revalidation
		want validity.Policy
		bad  bool
	}{
		{nil, validity.Policy{Grace: 30 * time.Second}, false},
		{&adminv1.Revalidation{Grace: durationpb.New(time.Second)}, validity.Policy{Grace: time.Second}, false},
		{&adminv1.Revalidation{Action: adminv1.RevalidationAction_REVALIDATION_ACTION_CLOSE}, validity.Policy{Action: validity.Close, Grace: 30 * time.Second}, false},
		{&adminv1.Revalidation{Action: adminv1.RevalidationAction_REVALIDATION_ACTION_REPORT}, validity.Policy{Action: validity.Report, Grace: 30 * time.Second}, false},
		{&adminv1.Revalidation{Action: adminv1.RevalidationAction_REVALIDATION_ACTION_CLOSE, Grace: durationpb.New(time.Second)}, validity.Policy{}, true},
		{&adminv1.Revalidation{Action: 9}, validity.Policy{}, true},
		{&adminv1.Revalidation{Grace: durationpb.New(-time.Second)}, validity.Policy{}, true},
	} {
		u := tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"t"}, Revalidation: c.r})
		if c.bad {
			w.refused(u)
			continue
		}
		w.put(u)
		got := *w.snap.upstreams.Get("u").policy
		got.Verifier = nil
		if got != c.want {
			t.Errorf("%v: %+v", c.r, got)
		}
	}
}
