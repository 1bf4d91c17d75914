package upstream

import "github.com/drawbridge-gateway/drawbridge/bridge/latency"

// Latencies records how long the endpoints of one upstream take, in total. It
// outlives the Upstreams of single revisions, which share it. The zero value
// is ready for use.
type Latencies struct {
	Connect   latency.Histogram // including failed attempts
	Handshake latency.Histogram // TLS handshakes, including failed ones
	Head      latency.Histogram // from when a request has a connection until its response's head
}
