package snapshot

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// What of health checks and outlier detection cannot work is refused by its name,
// all of it at once.
func TestHealthIsCheckedAsItIsWritten(t *testing.T) {
	w := newWorld(t)
	w.put(w.bundle("trust"))
	sound := tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}})
	w.put(sound)
	for _, test := range []struct {
		text   string
		fields []invalid.Path
	}{
		{`health_check {}`, []invalid.Path{"health_check"}},
		{`health_check { tcp {} interval { nanos: 99000000 } healthy_threshold: 101 unhealthy_threshold: 101 timeout {} }`,
			[]invalid.Path{"health_check.healthy_threshold", "health_check.interval", "health_check.timeout", "health_check.unhealthy_threshold"}},
		{`plaintext {} health_check { tls {} }`, []invalid.Path{"health_check.tls"}},
		{`passthrough {} health_check { tls {} }`, []invalid.Path{"health_check.tls"}},
		{`passthrough {} health_check { http {} }`, []invalid.Path{"health_check.http"}},
		{`http { protocol: HTTP_PROTOCOL_1_1 } health_check { grpc { service: "a b" } }`, []invalid.Path{"health_check.grpc", "health_check.grpc.service"}},
		{`health_check { http { path: "x" host: "a b" method: "POST" codes { from: 100 } codes { from: 300 to: 200 } codes { from: 204 } } }`,
			[]invalid.Path{"health_check.http.codes[0]", "health_check.http.codes[1]", "health_check.http.host", "health_check.http.method", "health_check.http.path"}},
		{`health_check { http { method: "HEAD" body_contains: "x" } }`, []invalid.Path{"health_check.http.body_contains"}},
		{`outlier_detection { consecutive_failures: 0 }`, []invalid.Path{"outlier_detection"}},
		{`outlier_detection { max_ejected_percent: 0 base_ejection { seconds: 60 } max_ejection { seconds: 59 } error_rate { window { nanos: 1 } } handshake_reasons: REASON_OVERLOADED }`,
			[]invalid.Path{"outlier_detection.error_rate.percent", "outlier_detection.error_rate.window", "outlier_detection.handshake_reasons[0]",
				"outlier_detection.max_ejected_percent", "outlier_detection.max_ejection"}},
	} {
		u := proto.Clone(sound).(*adminv1.Upstream)
		more := &adminv1.Upstream{}
		if err := prototext.Unmarshal([]byte(test.text), more); err != nil {
			t.Fatal(err)
		}
		if more.Transport != nil {
			u.Transport = nil
		}
		proto.Merge(u, more)
		var fields []invalid.Path
		for _, f := range w.refused(u) {
			fields = append(fields, f.Field)
		}
		for i := range test.fields {
			test.fields[i] = "r0." + test.fields[i]
		}
		if slices.Sort(fields); !slices.Equal(fields, test.fields) {
			t.Errorf("%s: faults at %v, want %v", test.text, fields, test.fields)
		}
	}
	// The defaults, as the API has them.
	u := proto.Clone(sound).(*adminv1.Upstream)
	u.HealthCheck = &adminv1.HealthCheck{Kind: &adminv1.HealthCheck_Tcp{Tcp: &adminv1.TcpCheck{}}}
	u.OutlierDetection = &adminv1.OutlierDetection{}
	w.put(u)
}
