package upstream

import "github.com/drawbridge-gateway/drawbridge/bridge/latency"

// Latencies counts how long the endpoints of one upstream take, all together. It
// outlives the Upstreams of single revisions, which share it. The zero value is
// ready for use.
type Latencies struct {
	Connect   latency.Histogram // to connect, failed attempts included
	Handshake latency.Histogram // of TLS, likewise
	Head      latency.Histogram // from when a request has a connection to its response's head
}
