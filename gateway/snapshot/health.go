package snapshot

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/bridge/health"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	minInterval  = 100 * time.Millisecond // minimum time between two checks of an endpoint
	maxThreshold = 100                    // maximum number of consecutive results
	maxCodes     = 20                     // maximum number of code ranges
	maxContains  = 1024                   // maximum length of the text to find in a body
	maxCheckPath = 4096
)

// healthCheck returns the options of the endpoints' health checks.
func (s upstreamScope) healthCheck(msg *adminv1.Upstream, p backs.Protocol) (o upstream.CheckOptions) {
	c := msg.GetHealthCheck()
	if c == nil {
		return o
	}
	o.Interval = s.duration("health_check.interval", c.GetInterval())
	if c.GetInterval() != nil && o.Interval < minInterval && o.Interval > 0 {
		s.Add("health_check.interval", "is %v; it must be at least %v", o.Interval, minInterval)
	}
	o.Timeout = s.duration("health_check.timeout", c.GetTimeout())
	o.Healthy = s.count("health_check.healthy_threshold", c.HealthyThreshold, maxThreshold)
	o.Unhealthy = s.count("health_check.unhealthy_threshold", c.UnhealthyThreshold, maxThreshold)
	o.Kind = kindOf(msg)
	passes := func(at invalid.Path) {
		if msg.GetPassthrough() != nil {
			s.Add(at, "must be left out with passthrough, where the gateway does no TLS of its own; tcp checks that a connection can be made")
		}
	}
	switch kind := c.GetKind().(type) {
	case *adminv1.HealthCheck_Tcp:
		o.Check = health.TCP()
	case *adminv1.HealthCheck_Tls:
		passes("health_check.tls")
		o.Check = s.tlsCheck(msg, p)
	case *adminv1.HealthCheck_Http:
		passes("health_check.http")
		o.Check = s.httpCheck(msg, kind.Http, p)
	case *adminv1.HealthCheck_Grpc:
		passes("health_check.grpc")
		o.Check = s.grpcCheck(msg, kind.Grpc, p)
	default:
		s.Add("health_check", "must be tcp, tls, http or grpc")
	}
	return o
}

// kindOf returns a key for the check itself, without its interval and thresholds.
func kindOf(msg *adminv1.Upstream) string {
	asked := &adminv1.HealthCheck{Kind: msg.GetHealthCheck().GetKind()}
	text, _ := proto.MarshalOptions{Deterministic: true}.Marshal(asked) // fails only on invalid UTF-8, which was rejected before
	return fmt.Sprintf("%t %s", overTLS(msg), text)
}

// tlsCheck returns a check that makes a TLS handshake. It handshakes as TCP
// listeners do, without ALPN by default, because every server accepts that. It
// offers h2 if the upstream uses only HTTP/2.
func (s upstreamScope) tlsCheck(msg *adminv1.Upstream, p backs.Protocol) health.Check {
	if msg.GetPlaintext() != nil {
		s.Add("health_check.tls", "must be left out with plaintext: there is no TLS handshake; tcp checks that a connection can be made")
	}
	s.namesForCheck(msg, "health_check.tls", false)
	if p == backs.HTTP2 {
		return health.TLS(upstream.HTTP, "")
	}
	return health.TLS(upstream.Stream, "")
}

// namesForCheck rejects a check without a server name. A check has no client whose
// connection could provide the name.
func (s upstreamScope) namesForCheck(msg *adminv1.Upstream, at invalid.Path, mayHaveHost bool) {
	t := msg.GetTls()
	if t.GetServerNameSource() != adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST {
		return
	}
	verified := t.GetVerifyName() != "" || len(t.GetSubjectAltNames()) > 0 ||
		t.GetVerification() == adminv1.Verification_VERIFICATION_INSECURE_SKIP
	for i, e := range msg.GetEndpoints() {
		_, _, host, problem := dialAddress(e.GetAddress())
		isName := isHostName(host)
		if problem != "" || e.GetDraining() || isName || host != "" && verified {
			continue
		}
		instead := "tcp checks that a connection can be made, and http has a host"
		if mayHaveHost {
			instead = "set host"
		}
		s.Add(at, "has no server name: tls.server_name_source takes it from the request, and %s is not a DNS name; %s", invalid.Path("endpoints").Index(i).Field("address"), instead)
		return
	}
}

// httpCheck returns a check that sends an HTTP request.
func (s upstreamScope) httpCheck(msg *adminv1.Upstream, c *adminv1.HttpCheck, p backs.Protocol) health.Check {
	at := invalid.Path("health_check.http")
	o := health.HTTPOptions{
		Path: c.GetPath(), Host: c.GetHost(), Method: c.GetMethod(), Contains: c.GetBodyContains(),
		PriorKnowledge: p == backs.HTTP2,
	}
	if p := c.GetPath(); p != "" && !isCheckPath(p) {
		s.Add(at.Field("path"), "is %.200q; it must begin with / and be a valid request path, with an optional query and without a fragment", p)
	}
	if h := c.GetHost(); h != "" && !isHostPort(h) {
		s.Add(at.Field("host"), "is %.260q; it must be a DNS name or an IP address, with an optional port", h)
	}
	switch c.GetMethod() {
	case "", http.MethodGet:
	case http.MethodHead:
		if c.GetBodyContains() != "" {
			s.Add(at.Field("body_contains"), "must be left out where method is HEAD: such a response has no body")
		}
	default:
		s.Add(at.Field("method"), "is %.40q; it must be GET or HEAD", c.GetMethod())
	}
	if n := len(c.GetBodyContains()); n > maxContains {
		s.Add(at.Field("body_contains"), "has %d bytes; it may have at most %d", n, maxContains)
	}
	if n := len(c.GetCodes()); n > maxCodes {
		s.Add(at.Field("codes"), "has %d ranges; it may have at most %d", n, maxCodes)
	}
	for i, r := range c.GetCodes() {
		from, to := r.GetFirst(), r.GetFirst()
		if r.Last != nil {
			to = r.GetLast()
		}
		if from < 200 || to > 599 || to < from {
			s.Add(at.Field("codes").Index(i), "is %d to %d; it must be from 200 to 599, and first at most last", from, to)
		}
		o.Codes = append(o.Codes, health.Codes{From: int(from), To: int(to)})
	}
	if c.GetHost() == "" {
		s.namesForCheck(msg, at, true)
	}
	return health.HTTP(o)
}

// grpcCheck returns a check that uses the gRPC health checking protocol.
func (s upstreamScope) grpcCheck(msg *adminv1.Upstream, c *adminv1.GrpcCheck, p backs.Protocol) health.Check {
	at := invalid.Path("health_check.grpc")
	if p == backs.HTTP1 {
		s.Add(at, "must be left out where http.protocol is HTTP_PROTOCOL_1_1: gRPC is HTTP/2")
	} else if protos := msg.GetTls().GetAlpn(); len(protos) > 0 && !slices.Contains(protos, "h2") {
		s.Add(at, "needs h2 in tls.alpn, or an empty tls.alpn: gRPC is HTTP/2")
	}
	if n := c.GetService(); len(n) > 256 || strings.ContainsFunc(n, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		s.Add(at.Field("service"), "is %.100q; it must be a service's name such as \"pay.v1.Payments\"", n)
	}
	s.namesForCheck(msg, at, false)
	return health.GRPC(health.GRPCOptions{Service: c.GetService()})
}

// isCheckPath reports whether a path can be requested unchanged.
func isCheckPath(p string) bool {
	if !strings.HasPrefix(p, "/") || len(p) > maxCheckPath || strings.Contains(p, "#") {
		return false
	}
	for i := range len(p) {
		if p[i] <= ' ' || p[i] >= 0x7f {
			return false
		}
	}
	_, err := url.ParseRequestURI(p)
	return err == nil
}

// isHostPort reports whether h can be a request's Host.
func isHostPort(h string) bool {
	if host, port, err := net.SplitHostPort(h); err == nil {
		n, ok := parsePort(port)
		return ok && n > 0 && IsHost(host)
	}
	if inner, ok := strings.CutPrefix(h, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		ip, err := netip.ParseAddr(inner)
		return ok && err == nil && ip.Is6()
	}
	return IsHost(h) && !strings.Contains(h, ":")
}
