package format

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestWordsHaveNoPrefix(t *testing.T) {
	for got, want := range map[string]string{
		Word(adminv1.Protocol_PROTOCOL_HTTP):           "HTTP",
		Word(adminv1.Protocol_PROTOCOL_UNSPECIFIED):    "UNSPECIFIED",
		Word(adminv1.Protocol(99)):                     "99", // a value of a newer gateway
		Lower(adminv1.ListenerState_LISTENER_STATE_UP): "up",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A script can read every field without checking that it exists.
func TestWordsJSONHasEveryField(t *testing.T) {
	r := &adminv1.ProbeResult{
		Endpoint: "a:1", Outcome: adminv1.ProbeOutcome_PROBE_OUTCOME_FAILED, Explanation: "<&>",
		Timings: &adminv1.ProbeTimings{Dns: &durationpb.Duration{Nanos: 1_500_000}},
		Chain:   []*adminv1.CertificateInfo{{NotAfter: &timestamppb.Timestamp{Seconds: 1893456000}}},
	}
	got, err := WordsJSON(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"outcome":"FAILED"`, `"reason":""`, `"explanation":"<&>"`, `"clientCertificateSent":false`, `"acceptableCas":[]`,
		`"timings":{"dns":"0.001500s"}`, `"notAfter":"2030-01-01T00:00:00Z"`,
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if strings.Contains(string(got), `"suggestion"`) { // an unset message
		t.Errorf("%s", got)
	}
	var yaml strings.Builder
	if err := WriteWords(&yaml, YAML, r); err != nil || !strings.Contains(yaml.String(), "\noutcome: FAILED\n") {
		t.Errorf("%v: %s", err, yaml.String())
	}
}

func TestWordsJSONSortsTheKeysOfMaps(t *testing.T) {
	got, err := WordsJSON(&adminv1.Gateway{GatewayId: "a", Labels: map[string]string{"zone": "<a>", "b\"": "", "tier": "edge"}})
	if want := `"labels":{"b\"":"","tier":"edge","zone":"<a>"}`; err != nil || !strings.Contains(string(got), want) {
		t.Errorf("no %s in %s, %v", want, got, err)
	}
}

func TestFormatsAreParsed(t *testing.T) {
	var f Format
	if err := f.Set("JSON"); err != nil || f != JSON || f.String() != "json" {
		t.Errorf("%v, %v", f, err)
	}
	if err := f.Set("xml"); err == nil || f != JSON {
		t.Errorf("xml is %v", f)
	}
}
