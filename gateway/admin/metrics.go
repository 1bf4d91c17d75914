package admin

import (
	"github.com/armon/go-metrics"
	"google.golang.org/grpc/codes"
)

// measure counts a call and its duration. Calls of unknown methods share the label
// "unknown", so that callers cannot create labels.
func (s *Server) measure(c *call, code codes.Code) {
	if s.metrics == nil {
		return
	}
	name := c.method
	if _, known := s.rights[name]; !known {
		name = "unknown"
	}
	method := metrics.Label{Name: "method", Value: name}
	s.metrics.IncrCounterWithLabels([]string{"admin", "requests"}, 1, []metrics.Label{method, {Name: "code", Value: code.String()}})
	s.metrics.MeasureSinceWithLabels([]string{"admin", "duration"}, c.began, []metrics.Label{method})
}
