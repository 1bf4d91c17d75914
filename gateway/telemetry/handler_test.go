package telemetry

import (
	"net/http"
	"testing"
)

func TestGzipIsUsedIfAccepted(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "identity": false, "deflate, gzip;q=1.0, *;q=0.5": true, "gzip; q=0": false, "gzip;q=0.000": false, "gzip;q=0.5": true, "x-gzip": false,
	} {
		if got := acceptsGzip(&http.Request{Header: http.Header{"Accept-Encoding": {header}}}); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
}
