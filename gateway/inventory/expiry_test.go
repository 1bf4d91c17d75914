package inventory

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestEachThresholdIsReportedOnce(t *testing.T) {
	end := time.Date(2030, 6, 1, 0, 0, 0, 0, time.UTC)
	inUse := func(fingerprint string, end time.Time) []*adminv1.CertificateInUse {
		return []*adminv1.CertificateInUse{{
			Use: adminv1.CertificateUse_CERTIFICATE_USE_OWN, Name: "client",
			Info: &adminv1.CertificateInfo{Subject: "CN=client", Sha256Fingerprint: fingerprint, NotAfter: timestamppb.New(end)},
		}}
	}
	before := func(days float64) time.Time { return end.Add(-time.Duration(days * 24 * float64(time.Hour))) }
	var e expiry
	for _, step := range []struct {
		days float64 // before the end
		want string  // part of the message; empty: no event
	}{
		{100, ""}, {31, ""}, {30, "in 30 days"}, {29, ""}, {14, "in 14 days"}, {13.9, ""},
		{5, "in 5 days"}, // 7 was missed
		{4, ""}, {1, "in 1 days"}, {0.5, ""}, {0, "CN=client expired on 2030-06-01"}, {-1, ""},
	} {
		events := e.due(inUse("a", end), before(step.days))
		switch {
		case step.want == "" && len(events) > 0:
			t.Errorf("%v days before: reported %q again", step.days, events[0].GetMessage())
		case step.want != "" && (len(events) != 1 || !strings.Contains(events[0].GetMessage(), step.want)):
			t.Errorf("%v days before: %v, want %q", step.days, events, step.want)
		}
	}
	// A new certificate under the name starts from the first threshold, and a removed one
	// is forgotten.
	if events := e.due(inUse("b", end), before(3)); len(events) != 1 || events[0].GetName() != "client" || events[0].GetKind() != adminv1.Kind_KIND_CERTIFICATE {
		t.Errorf("%v", events)
	}
	e.due(nil, before(3))
	if events := e.due(inUse("b", end), before(3)); len(events) != 1 {
		t.Errorf("%v", events)
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
