package view

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestDaysLeftAreCountedToTheFirstExpiry(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	info := func(subject string, left time.Duration) *adminv1.CertificateInfo {
		return &adminv1.CertificateInfo{Subject: subject, NotAfter: timestamppb.New(now.Add(left)), Sha256Fingerprint: "AB:CD"}
	}
	bundle := &adminv1.TrustBundle{Name: "b", Source: &adminv1.TrustBundle_System{}, Info: &adminv1.TrustBundleInfo{
		Count: 2, Certificates: []*adminv1.CertificateInfo{info("CN=a", 100*24*time.Hour), info("CN=b", 36*time.Hour)}}}
	check(t, TrustBundleTable([]*adminv1.Resource{store.Wrap(bundle)}, now), "b|system|2|CN=a,CN=b|1|")
	bundle.Info.Crls = []*adminv1.CrlInfo{{NextUpdate: timestamppb.New(now.Add(50 * time.Hour))}, {NextUpdate: timestamppb.New(now.Add(25 * time.Hour))}}
	check(t, TrustBundleTable([]*adminv1.Resource{store.Wrap(bundle)}, now), "b|system|2|CN=a,CN=b|1|2, next update in 1 day")
	bundle.Info.Crls[0].NextUpdate = timestamppb.New(now.Add(-time.Second))
	check(t, TrustBundleTable([]*adminv1.Resource{store.Wrap(bundle)}, now), "b|system|2|CN=a,CN=b|1|2, OUTDATED")
	expired := &adminv1.Certificate{Name: "c", Info: info("CN=c", -time.Second)}
	expired.Info.Findings = []adminv1.CertificateFinding{adminv1.CertificateFinding_CERTIFICATE_FINDING_EXPIRED, adminv1.CertificateFinding_CERTIFICATE_FINDING_NO_SAN}
	check(t, CertificateTable([]*adminv1.Resource{store.Wrap(expired), store.Wrap(&adminv1.Certificate{Name: "d", Source: &adminv1.Certificate_Pkcs12{}})}, now),
		"c|CN=c||expired||pem|abcd|EXPIRED,NO_SAN", "d|||||pkcs12||")
}

// A CA is unneeded after a day without use, if another CA of its bundle is in
// use.
func TestUnneededCAs(t *testing.T) {
	now := time.Date(2030, 6, 10, 12, 0, 0, 0, time.UTC)
	ca := func(bundle, subject string, since, last time.Duration) *adminv1.CertificateInUse {
		e := &adminv1.AnchorEvidence{SinceTime: timestamppb.New(now.Add(-since))}
		if last >= 0 {
			e.LastVerifiedTime = timestamppb.New(now.Add(-last))
		}
		return &adminv1.CertificateInUse{Name: bundle, Info: &adminv1.CertificateInfo{Subject: subject}, Evidence: e}
	}
	const day, never = 24 * time.Hour, -1
	got := UnneededCAs([]*adminv1.CertificateInUse{
		ca("corp", "CN=new", 10*day, time.Minute), ca("corp", "CN=old", 10*day, 2*day), ca("corp", "CN=older", 10*day, never), ca("corp", "CN=added today", time.Hour, never),
		ca("corp", "CN=used today", 10*day, 23*time.Hour), ca("idle", "CN=a", 10*day, 3*day), ca("idle", "CN=b", 10*day, never), ca("unused", "CN=c", 10*day, never),
		{Name: "corp", Info: &adminv1.CertificateInfo{Subject: "CN=a certificate"}},
	}, now, day)
	want := []string{
		"CA CN=old of trust bundle corp is no longer needed: no handshake has used it since 2030-06-08 12:00.",
		"CA CN=older of trust bundle corp is not in use: no handshake has used it since recording began on 2030-05-31 12:00.",
		"CA CN=b of trust bundle idle is not in use: no handshake has used it since recording began on 2030-05-31 12:00.",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}

	// A CA is needed if it was the last to verify an endpoint. A CA without evidence may be
	// needed.
	used, needed, unknown := ca("corp", "CN=new", 10*day, time.Minute), ca("corp", "CN=needed", 10*day, 2*day), ca("corp", "CN=unknown", 10*day, 2*day)
	needed.Evidence.NeededByCount = 1
	unknown.Evidence.UnknownCount = 9
	unknown.Evidence.Unknown = []*adminv1.AnchorUser{
		{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "pay", Endpoint: "a:1"}, {Kind: adminv1.Kind_KIND_LISTENER, Name: "web"},
		{Kind: adminv1.Kind_KIND_LISTENER, Name: "web", Hosts: []string{"a.test", "b.test"}},
	}
	got = UnneededCAs([]*adminv1.CertificateInUse{used, needed, unknown}, now, time.Hour)
	want = []string{"CA CN=unknown of trust bundle corp may no longer be needed: no handshake has used it since 2030-06-08 12:00. " +
		"The gateway has not verified upstream pay a:1, clients of listener web, clients of listener web for a.test,b.test, and 6 more since it started."}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
