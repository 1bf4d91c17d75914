package snapshot

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/bridge/health"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	minCheckInterval = 100 * time.Millisecond
	maxThreshold     = 100
	maxContains      = 1024
)

// healthCheck returns how endpoints are asked whether they are well; the zero
// CheckOptions: they are not.
func (s *scope) healthCheck(msg *adminv1.Upstream, p l7.Protocol) upstream.CheckOptions {
	h := msg.GetHealthCheck()
	if h == nil {
		return upstream.CheckOptions{}
	}
	o := upstream.CheckOptions{
		Ask:       s.ask(msg, h, p),
		Interval:  s.duration("health_check.interval", h.GetInterval()),
		Timeout:   s.duration("health_check.timeout", h.GetTimeout()),
		Healthy:   s.limit("health_check.healthy_threshold", h.GetHealthyThreshold(), maxThreshold),
		Unhealthy: s.limit("health_check.unhealthy_threshold", h.GetUnhealthyThreshold(), maxThreshold),
	}
	if o.Interval > 0 && o.Interval < minCheckInterval {
		s.Add("health_check.interval", "is %v; it must be at least %v", o.Interval, minCheckInterval)
	}
	// What was answered to the same question counts in a new revision.
	kind, err := proto.MarshalOptions{Deterministic: true}.Marshal(&adminv1.HealthCheck{Kind: h.GetKind()})
	if err != nil {
		s.Add("health_check", "%v", err)
	}
	o.Kind = string(kind)
	return o
}

// ask returns what endpoints are asked.
func (s *scope) ask(msg *adminv1.Upstream, h *adminv1.HealthCheck, p l7.Protocol) health.Ask {
	passes := func(at invalid.Path) {
		if msg.GetPassthrough() != nil {
			s.Add(at, "must be left out with passthrough, where the gateway does no TLS of its own: use health_check.tcp")
		}
	}
	switch k := h.GetKind().(type) {
	case *adminv1.HealthCheck_Tcp:
		return health.TCP()
	case *adminv1.HealthCheck_Tls:
		if passes("health_check.tls"); msg.GetPlaintext() != nil {
			s.Add("health_check.tls", "must be left out with plaintext: there is no handshake; use health_check.tcp")
		}
		// Streams offer no protocol of themselves, and so are let in by servers of
		// every kind.
		purpose := upstream.Stream
		if p == l7.HTTP2 {
			purpose = upstream.HTTP
		}
		return health.TLS(purpose, "")
	case *adminv1.HealthCheck_Http:
		passes("health_check.http")
		return health.HTTP(s.httpCheck(msg, k.Http, p))
	case *adminv1.HealthCheck_Grpc:
		passes("health_check.grpc")
		if p == l7.HTTP1 {
			s.Add("health_check.grpc", "needs HTTP/2, and http.protocol is HTTP_PROTOCOL_1_1")
		}
		service := k.Grpc.GetService()
		if len(service) > 256 || strings.ContainsFunc(service, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			s.Add("health_check.grpc.service", "is %.100q; it must be a service's name such as \"pay.v1.Payments\"", service)
		}
		return health.GRPC(health.GRPCOptions{Service: service})
	}
	s.Add("health_check", "must have tcp, tls, http or grpc: what is asked")
	return nil
}

func (s *scope) httpCheck(msg *adminv1.Upstream, c *adminv1.HttpCheck, p l7.Protocol) health.HTTPOptions {
	o := health.HTTPOptions{
		Path: c.GetPath(), Host: c.GetHost(), Method: c.GetMethod(), Contains: c.GetBodyContains(),
		PriorKnowledge: p == l7.HTTP2 && !overTLS(msg),
	}
	if o.Path != "" && (o.Path[0] != '/' || strings.ContainsFunc(o.Path, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' })) {
		s.Add("health_check.http.path", "is %.100q; it must begin with / and be escaped as in a URL", o.Path)
	}
	if o.Host != "" {
		if _, err := route.NormalizeHost(o.Host); err != nil {
			s.Add("health_check.http.host", "is %.100q; it must be a host name or IP address, with or without a port", o.Host)
		}
	}
	if o.Method != "" && o.Method != "GET" && o.Method != "HEAD" {
		s.Add("health_check.http.method", "is %.40q; it must be GET or HEAD", o.Method)
	}
	switch {
	case o.Contains != "" && o.Method == "HEAD":
		s.Add("health_check.http.body_contains", "must be left out where method is HEAD: the response has no body")
	case len(o.Contains) > maxContains:
		s.Add("health_check.http.body_contains", "has %d bytes; it must have at most %d", len(o.Contains), maxContains)
	}
	for i, r := range c.GetCodes() {
		to := cmp.Or(r.GetTo(), r.GetFrom())
		if r.GetFrom() < 200 || r.GetFrom() > 599 || to < r.GetFrom() || to > 599 {
			s.Add(invalid.Path("health_check.http.codes").Index(i), "is from %d to %d; it must be codes from 200 to 599, the lesser first", r.GetFrom(), r.GetTo())
			continue
		}
		o.Codes = append(o.Codes, health.Codes{From: int(r.GetFrom()), To: int(to)})
	}
	return o
}

// notOfHandshakes are the reasons that no handshake fails for.
var notOfHandshakes = []adminv1.Reason{
	adminv1.Reason_REASON_UNSPECIFIED, adminv1.Reason_REASON_NO_ENDPOINT, adminv1.Reason_REASON_OVERLOADED, adminv1.Reason_REASON_CHECK_FAILED,
	adminv1.Reason_REASON_RESPONSE_TIMEOUT, adminv1.Reason_REASON_RESPONSE_BROKEN, adminv1.Reason_REASON_CONNECT_REFUSED,
	adminv1.Reason_REASON_CONNECT_TIMEOUT, adminv1.Reason_REASON_UNREACHABLE, adminv1.Reason_REASON_DNS_FAILURE,
}

// outliers returns because of what an endpoint is left alone; nil: of nothing.
func (s *scope) outliers(d *adminv1.OutlierDetection) *upstream.OutlierOptions {
	if d == nil {
		return nil
	}
	const most = 1_000_000
	failures := uint32(5)
	if d.ConsecutiveFailures != nil {
		failures = d.GetConsecutiveFailures()
	}
	handshakes := failures
	if d.ConsecutiveHandshakeFailures != nil {
		handshakes = d.GetConsecutiveHandshakeFailures()
	}
	o := &upstream.OutlierOptions{
		Failures:   s.limit("outlier_detection.consecutive_failures", failures, most),
		Handshakes: s.limit("outlier_detection.consecutive_handshake_failures", handshakes, most),
		Base:       s.duration("outlier_detection.base_ejection", d.GetBaseEjection()),
		Most:       s.duration("outlier_detection.max_ejection", d.GetMaxEjection()),
		MaxPercent: 50,
	}
	if d.MaxEjectedPercent != nil {
		o.MaxPercent = s.percent("outlier_detection.max_ejected_percent", d.GetMaxEjectedPercent())
	}
	if base := cmp.Or(o.Base, 30*time.Second); o.Most > 0 && o.Most < base {
		s.Add("outlier_detection.max_ejection", "is %v; it must be at least base_ejection, %v", o.Most, base)
	}
	for i, r := range d.GetHandshakeReasons() {
		at := invalid.Path("outlier_detection.handshake_reasons").Index(i)
		if !enum(s, at, r, adminv1.Reason_name) {
			continue
		}
		if slices.Contains(notOfHandshakes, r) {
			s.Add(at, "is %s, for which no handshake fails", r)
			continue
		}
		o.Reasons = append(o.Reasons, certs.Reason(strings.TrimPrefix(r.String(), "REASON_")))
	}
	if rate := d.GetErrorRate(); rate != nil {
		o.Percent = s.percent("outlier_detection.error_rate.percent", rate.GetPercent())
		o.MinAttempts = s.limit("outlier_detection.error_rate.min_requests", rate.GetMinRequests(), most)
		o.Window = s.duration("outlier_detection.error_rate.window", rate.GetWindow())
		if o.Window > 0 && (o.Window < time.Second || o.Window > time.Hour) {
			s.Add("outlier_detection.error_rate.window", "is %v; it must be from 1s to 1h", o.Window)
		}
	}
	if failures == 0 && handshakes == 0 && d.GetErrorRate() == nil {
		s.Add("outlier_detection", "must count something: consecutive_failures, consecutive_handshake_failures or error_rate")
	}
	return o
}

// percent checks a share that must not be none.
func (s *scope) percent(p invalid.Path, n uint32) int {
	if n < 1 || n > 100 {
		s.Add(p, "is %d; it must be from 1 to 100", n)
		return 0
	}
	return int(n)
}
