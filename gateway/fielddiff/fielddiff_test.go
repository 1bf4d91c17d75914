package fielddiff

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func lines(changes []*adminv1.FieldChange) []string {
	var out []string
	for _, c := range changes {
		out = append(out, fmt.Sprintf("%s: %s -> %s", c.GetPath(), c.GetBefore(), c.GetAfter()))
	}
	return out
}

func TestEachFieldThatDiffersIsListedWithBothValues(t *testing.T) {
	before := &adminv1.Upstream{
		Name: "up", Etag: "1", Revision: 1, Labels: map[string]string{"team": "a", "old": "x"},
		Endpoints: []*adminv1.Endpoint{{Address: "a:1"}, {Address: "b:1"}, {Address: "c:1"}},
		Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{Alpn: []string{"h2"}, MinVersion: adminv1.TlsVersion_TLS_VERSION_1_2}},
		Timeouts:  &adminv1.UpstreamTimeouts{Connect: durationpb.New(time.Second)},
	}
	after := proto.Clone(before).(*adminv1.Upstream)
	after.Etag, after.Revision = "2", 2
	after.Labels = map[string]string{"team": "b <&>"}
	after.Endpoints = []*adminv1.Endpoint{{Address: "a:1"}, {Address: "b:2", Backup: true}, {Address: "d:1"}, {Address: "c:1"}}
	after.GetTls().MinVersion = adminv1.TlsVersion_TLS_VERSION_1_3
	after.GetTls().Alpn = nil
	after.Timeouts.Connect = durationpb.New(2 * time.Second)
	want := []string{
		`labels["old"]: "x" -> `,
		`labels["team"]: "a" -> "b <&>"`,
		`endpoints[1].address: "b:1" -> "b:2"`,
		`endpoints[1].backup:  -> true`,
		`endpoints[2].address:  -> "d:1"`,
		`tls.min_version: "TLS_VERSION_1_2" -> "TLS_VERSION_1_3"`,
		`tls.alpn[0]: "h2" -> `,
		`timeouts.connect: "1s" -> "2s"`,
	}
	got := lines(New().Diff(before, after))
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := New().Diff(before, before); got != nil {
		t.Errorf("a resource differs from itself: %v", got)
	}
	if got := New().Diff(nil, nil); got != nil {
		t.Errorf("%v", got)
	}
}

func TestFieldsThatOnlyOneSideHasAreListed(t *testing.T) {
	r := &adminv1.Upstream{Name: "up", Transport: &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}}
	if got := lines(New().Diff(nil, r)); !slices.Equal(got, []string{`name:  -> "up"`, `plaintext:  -> {}`}) {
		t.Errorf("%q", got)
	}
	if got := lines(New().Diff(r, nil)); !slices.Equal(got, []string{`name: "up" -> `, `plaintext: {} -> `}) {
		t.Errorf("%q", got)
	}
}

// A diff shows no part of a secret. Only the Differ can compute its fingerprint.
func TestSecretsAreShownAsFingerprintsWithAKey(t *testing.T) {
	one := &adminv1.Certificate{Name: "c", Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{PrivateKey: "hunter2-key", Passphrase: "hunter2"}}}
	two := &adminv1.Certificate{Name: "c", Source: &adminv1.Certificate_Pkcs12{Pkcs12: &adminv1.CertificatePkcs12{Data: []byte("hunter2-data"), Passphrase: "hunter2"}}}
	d := New()
	changes := d.Diff(one, two)
	if len(changes) != 4 {
		t.Fatalf("%v", changes)
	}
	for _, c := range changes {
		if !c.GetFingerprints() || strings.Contains(c.String(), "hunter2") || len(c.GetBefore()+c.GetAfter()) > 40 {
			t.Errorf("%v", c)
		}
	}
	if again := d.Diff(one, two); changes[0].GetBefore() != again[0].GetBefore() {
		t.Error("the fingerprints of one secret differ")
	}
	if other := New().Diff(one, two); changes[0].GetBefore() == other[0].GetBefore() {
		t.Error("two Differs have the same key")
	}
}

func TestLongValuesAreShownAsDigests(t *testing.T) {
	pem := func(fill string) store.Resource {
		return &adminv1.TrustBundle{Name: "b", Source: &adminv1.TrustBundle_Pem{Pem: strings.Repeat(fill, 5000)}}
	}
	got := New().Diff(pem("a"), pem("b"))
	if len(got) != 1 || !got[0].GetFingerprints() || !strings.Contains(got[0].GetBefore(), "5002 bytes") || got[0].GetBefore() == got[0].GetAfter() {
		t.Errorf("%v", got)
	}
}
