package snapshot

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Defaults.
const (
	defaultFailures   = 5
	defaultMaxEjected = 50
	defaultEjection   = 30 * time.Second
	defaultMost       = 300 * time.Second
	minWindow         = time.Second
	maxWindow         = time.Hour
	maxAttempts       = 1_000_000
)

// outliers returns the settings for ejecting endpoints. Nil disables ejection.
func (s upstreamScope) outliers(msg *adminv1.Upstream) *upstream.OutlierOptions {
	d := msg.GetOutlierDetection()
	if d == nil {
		return nil
	}
	at := invalid.Path("outlier_detection")
	o := &upstream.OutlierOptions{Failures: defaultFailures, MaxPercent: defaultMaxEjected}
	if d.ConsecutiveFailures != nil {
		o.Failures = s.limit(at.Field("consecutive_failures"), d.GetConsecutiveFailures(), maxAttempts)
	}
	o.Handshakes = o.Failures
	if d.ConsecutiveHandshakeFailures != nil {
		o.Handshakes = s.limit(at.Field("consecutive_handshake_failures"), d.GetConsecutiveHandshakeFailures(), maxAttempts)
	}
	if !overTLS(msg) {
		for _, f := range []struct {
			name string
			set  bool
		}{{"consecutive_handshake_failures", d.ConsecutiveHandshakeFailures != nil}, {"handshake_reasons", len(d.GetHandshakeReasons()) > 0}} {
			if f.set {
				s.Add(at.Field(f.name), "must be left out with plaintext and passthrough: the gateway makes no TLS handshake")
			}
		}
	}
	o.Reasons = s.handshakeReasons(msg, at.Field("handshake_reasons"), d.GetHandshakeReasons())
	s.errorRate(at.Field("error_rate"), d.GetErrorRate(), o)
	if d.ConsecutiveFailures != nil && d.GetConsecutiveFailures() == 0 && d.GetConsecutiveHandshakeFailures() == 0 && d.GetErrorRate() == nil {
		s.Add(at, "must count something: consecutive_failures, consecutive_handshake_failures or error_rate")
	}
	o.Base = s.duration(at.Field("base_ejection"), d.GetBaseEjection())
	o.Max = s.duration(at.Field("max_ejection"), d.GetMaxEjection())
	if base, most := cmp.Or(o.Base, defaultEjection), cmp.Or(o.Max, defaultMost); base > most {
		s.Add(at.Field("max_ejection"), "is %v; it must be at least base_ejection, which is %v", most, base)
	}
	if d.MaxEjectedPercent != nil {
		o.MaxPercent = s.percent(at.Field("max_ejected_percent"), d.GetMaxEjectedPercent())
	}
	return o
}

// errorRate sets the error rate in o at which an endpoint is ejected.
func (s upstreamScope) errorRate(at invalid.Path, r *adminv1.ErrorRate, o *upstream.OutlierOptions) {
	if r == nil {
		return
	}
	o.Percent = s.percent(at.Field("percent"), r.GetPercent())
	o.MinAttempts = s.count(at.Field("min_requests"), r.MinRequests, maxAttempts)
	if o.Window = s.duration(at.Field("window"), r.GetWindow()); o.Window > 0 && (o.Window < minWindow || o.Window > maxWindow) {
		s.Add(at.Field("window"), "is %v; it must be from %v to %v", o.Window, minWindow, maxWindow)
	}
}

// percent checks a percentage above 0.
func (s *scope) percent(p invalid.Path, n int32) int {
	if n < 1 || n > 100 {
		s.Add(p, "is %d; it must be from 1 to 100", n)
		return 0
	}
	return int(n)
}

// noHandshakes are the reasons that a failed handshake cannot have, or that the
// endpoint does not cause.
var noHandshakes = []adminv1.Reason{
	adminv1.Reason_REASON_UNSPECIFIED, adminv1.Reason_REASON_CONNECT_REFUSED, adminv1.Reason_REASON_CONNECT_TIMEOUT,
	adminv1.Reason_REASON_UNREACHABLE, adminv1.Reason_REASON_DNS_FAILURE, adminv1.Reason_REASON_LOCAL_CONFIG,
	adminv1.Reason_REASON_NO_ENDPOINT, adminv1.Reason_REASON_OVERLOADED, adminv1.Reason_REASON_CHECK_FAILED,
	adminv1.Reason_REASON_RESPONSE_TIMEOUT, adminv1.Reason_REASON_RESPONSE_BROKEN,
	adminv1.Reason_REASON_UPSTREAM_RESET, adminv1.Reason_REASON_UPSTREAM_TRUNCATED, adminv1.Reason_REASON_UPSTREAM_FAILED,
	adminv1.Reason_REASON_CLIENT_RESET, adminv1.Reason_REASON_CLIENT_TRUNCATED, adminv1.Reason_REASON_CLIENT_FAILED,
	adminv1.Reason_REASON_OWN_CERTIFICATE_EXPIRED,
}

// handshakeReasons returns the failure reasons that count toward ejection.
func (s upstreamScope) handshakeReasons(msg *adminv1.Upstream, at invalid.Path, reasons []adminv1.Reason) (out []certs.Reason) {
	fromHost := msg.GetTls().GetServerNameSource() == adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST
	for i, r := range reasons {
		if !enum(r, adminv1.Reason_name) {
			continue
		}
		switch {
		case slices.Contains(noHandshakes, r):
			s.Add(at.Index(i), "is %v, which is never the fault of an endpoint's handshake", r)
		case fromHost && (r == adminv1.Reason_REASON_NAME_MISMATCH || r == adminv1.Reason_REASON_UNRECOGNIZED_NAME):
			s.Add(at.Index(i), "is %v, which depends on the host that a client requests, not on the endpoint, because tls.server_name_source takes the name from that host", r)
		case slices.Contains(reasons[:i], r):
			s.Add(at.Index(i), "is %v, which is in the list twice", r)
		}
		out = append(out, certs.Reason(strings.TrimPrefix(r.String(), "REASON_")))
	}
	return out
}
