package inventory

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestEachThresholdIsReportedOnce(t *testing.T) {
	end := time.Date(2030, 6, 1, 0, 0, 0, 0, time.UTC)
	listed := func(fingerprint string, end time.Time) []inUse {
		var g gathering
		g.add(adminv1.CertificateUse_CERTIFICATE_USE_OWN, adminv1.Kind_KIND_CERTIFICATE, "client", "", fingerprint, end, func() *adminv1.CertificateInfo {
			return &adminv1.CertificateInfo{Subject: "CN=client"}
		})
		return g.found
	}
	before := func(days float64) time.Time { return end.Add(-time.Duration(days * 24 * float64(time.Hour))) }
	var e expiry
	for _, step := range []struct {
		days float64 // days before the expiry
		want string  // part of the message; empty: no event
	}{
		{100, ""}, {31, ""}, {30, "in 30 days"}, {29, ""}, {14, "in 14 days"}, {13.9, ""},
		{5, "in 5 days"}, // the threshold of 7 days was missed
		{4, ""}, {1, "in 1 day"}, {0.5, ""}, {0, "CN=client expired on 2030-06-01"}, {-1, ""},
	} {
		events := e.all(listed("a", end), before(step.days))
		switch {
		case step.want == "" && len(events) > 0:
			t.Errorf("%v days before: reported %q again", step.days, events[0].GetMessage())
		case step.want != "" && (len(events) != 1 || !strings.Contains(events[0].GetMessage(), step.want)):
			t.Errorf("%v days before: %v, want %q", step.days, events, step.want)
		}
	}
	// A new certificate under the name starts from the first threshold, and a removed one
	// is forgotten.
	if events := e.all(listed("b", end), before(3)); len(events) != 1 || events[0].GetName() != "client" || events[0].GetKind() != adminv1.Kind_KIND_CERTIFICATE {
		t.Errorf("%v", events)
	}
	e.all(nil, before(3))
	if events := e.all(listed("b", end), before(3)); len(events) != 1 {
		t.Errorf("%v", events)
	}
}

// A write checks only the certificates of the changed resources. Its events equal the
// events of a full check.
func TestAWriteChecksOnlyChangedCertificates(t *testing.T) {
	ca := certstest.NewCA(t)
	bundle := func(name string, label string) *adminv1.TrustBundle {
		return &adminv1.TrustBundle{Name: name, Labels: map[string]string{"l": label}, Source: &adminv1.TrustBundle_Pem{Pem: string(ca.TrustPEM())}}
	}
	compile := func(prev *snapshot.Snapshot, e store.Edit) *snapshot.Snapshot {
		t.Helper()
		var bad invalid.List
		m, err := snapshot.Compiler{}.Gather(t.Context(), prev, e, snapshot.Needs{})
		if err != nil {
			t.Fatal(err)
		}
		next, _ := snapshot.Compiler{}.Compile(prev, prev.State().Edit(e, &bad), m, &bad)
		if err := bad.Err(); err != nil {
			t.Fatal(err)
		}
		return next
	}
	var all store.Edit
	for i := range 300 {
		all.Puts = append(all.Puts, store.Put{Path: "p", Resource: bundle(fmt.Sprint("b", i), "")})
	}
	first := compile(new(snapshot.Snapshot), all)
	v := New(func() *snapshot.Snapshot { return first }, nil)
	var e expiry
	soon := first.TrustBundle("b0").Certificates()[0].NotAfter.Add(-24 * time.Hour)
	if events := e.all(v.inUse(first), soon); len(events) != 300 || e.checked != 300 {
		t.Fatalf("%d events, %d checked", len(events), e.checked)
	}
	second := compile(first, store.Edit{
		Puts:    []store.Put{{Path: "p", Resource: bundle("b7", "renamed")}, {Path: "q", Resource: bundle("new", "")}},
		Deletes: []store.Delete{{Path: "d", Kind: adminv1.Kind_KIND_TRUST_BUNDLE, Name: "b8"}},
	})
	e.checked = 0
	events := e.some(second, second.ChangedMaterial(first), soon)
	if len(events) != 1 || events[0].GetName() != "new" || e.checked != 2 {
		t.Errorf("%d checked, events %v", e.checked, events)
	}
	if len(e.reported) != 300 || e.reported[store.Ref{Kind: adminv1.Kind_KIND_TRUST_BUNDLE, Name: "b8"}] != nil {
		t.Errorf("%d resources are remembered", len(e.reported))
	}
	if events := e.all(v.inUse(second), soon); len(events) != 0 {
		t.Errorf("reported again: %v", events)
	}
}

func TestDaysLeftAreWholeDaysRoundedDown(t *testing.T) {
	now := time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)
	for left, want := range map[time.Duration]int32{
		0: 0, time.Hour: 0, 24 * time.Hour: 1, 47 * time.Hour: 1, -time.Hour: -1, -24 * time.Hour: -1, -25 * time.Hour: -2,
	} {
		if got := daysLeft(now.Add(left), now); got != want {
			t.Errorf("%v: %d, want %d", left, got, want)
		}
	}
}
