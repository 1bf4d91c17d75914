package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// A helpGatherer adds the help texts of Table to metrics, because go-metrics
// uses each metric's name as its help.
type helpGatherer struct {
	prometheus.Gatherer
	help map[string]string // help texts by name
}

// Gather implements prometheus.Gatherer.
func (h helpGatherer) Gather() ([]*dto.MetricFamily, error) {
	families, err := h.Gatherer.Gather()
	for _, f := range families {
		if text, ok := h.help[f.GetName()]; ok {
			f.Help = &text
		}
	}
	return families, err
}
