package manifest

import (
	"bytes"
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func unusualResources() []*adminv1.Resource {
	depth := int32(0)
	return []*adminv1.Resource{
		{Kind: &adminv1.Resource_TrustBundle{TrustBundle: &adminv1.TrustBundle{Name: "123", Source: &adminv1.TrustBundle_Pem{Pem: "-----BEGIN X-----\nabc\n-----END X-----\n"}}}},
		{Kind: &adminv1.Resource_Upstream{Upstream: &adminv1.Upstream{
			Name: "true", Revision: 1 << 60, Etag: "null",
			Labels:    map[string]string{"<<": "*a", "a: b": " lead\n\ttab\n", "": "~", "d": "2020-01-01", "e": "0x10"},
			Endpoints: []*adminv1.Endpoint{{Address: "[::1]:1", Weight: new(int32(3))}},
			Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{VerifyDepth: &depth, MinVersion: adminv1.TlsVersion_TLS_VERSION_1_2}},
			Timeouts:  &adminv1.UpstreamTimeouts{Connect: durationpb.New(1500e6)},
		}}},
		{Kind: &adminv1.Resource_Route{Route: &adminv1.Route{}}},
	}
}

func TestWrittenConfigurationIsReadBackTheSame(t *testing.T) {
	want := unusualResources()
	check := func(form string, text []byte) {
		t.Helper()
		m, err := Parse(Source{Name: form, Dir: "/", Data: text})
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		for i, r := range m.Resources() {
			if !proto.Equal(r, want[i]) {
				t.Errorf("%s: %v became %v\n%s", form, want[i], r, text)
			}
		}
		if len(m.Documents) != len(want) {
			t.Errorf("%s: %d documents", form, len(m.Documents))
		}
	}
	var yaml bytes.Buffer
	if err := WriteYAML(&yaml, want); err != nil {
		t.Fatal(err)
	}
	check("yaml", yaml.Bytes())
	if !bytes.Contains(yaml.Bytes(), []byte("pem: |\n  -----BEGIN X-----\n")) {
		t.Errorf("PEM is not a readable block:\n%s", yaml.Bytes())
	}

	var list []json.RawMessage
	for _, r := range want {
		doc, err := DocumentJSON(r)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, doc)
	}
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	check("json", text)
}

func TestMarshalledFormsAreStable(t *testing.T) {
	m := &adminv1.ResourceChange{Kind: adminv1.Kind_KIND_ROUTE, Name: "a"}
	text, err := MarshalJSON(m)
	if want := "{\n  \"kind\": \"KIND_ROUTE\",\n  \"name\": \"a\"\n}"; err != nil || string(text) != want {
		t.Errorf("got %s, %v", text, err)
	}
	text, err = MarshalYAML(m)
	if want := "kind: KIND_ROUTE\nname: a\n"; err != nil || string(text) != want {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestDesiredOmitsOutputOnlyFields(t *testing.T) {
	in := &adminv1.Resource{Kind: &adminv1.Resource_Certificate{Certificate: &adminv1.Certificate{
		Name: "c", Etag: "e", Revision: 3, Info: &adminv1.CertificateInfo{Subject: "CN=c"}}}}
	got := Desired(in).GetCertificate()
	if !proto.Equal(got, &adminv1.Certificate{Name: "c"}) {
		t.Errorf("got %v", got)
	}
	if in.GetCertificate().GetEtag() != "e" {
		t.Error("the original was changed")
	}
	if _, err := DocumentJSON(&adminv1.Resource{}); err == nil {
		t.Error("a resource without a kind was written")
	}
}
