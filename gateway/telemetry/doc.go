// Package telemetry publishes the counts of the live listeners, upstreams and
// certificates as metrics, for Prometheus and statsd.
//
// A Publisher reads the atomic counters of the parts that Options names. It owns
// the registry and the connection to statsd, but no part of the gateway. Table
// describes every metric; docs/reference/metrics.md is generated from it.
package telemetry
