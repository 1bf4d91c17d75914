package upstream_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestATraceRecordsDials(t *testing.T) {
	ca := certstest.NewCA(t)
	good := listen(t, "tcp", echoTLS(&tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))}})).String()
	notTLS := listen(t, "tcp", func(c net.Conn) { fmt.Fprint(c, "220 who are you?\r\n") }).String()
	client := func() *certs.Client {
		return newClient(t, certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{ca.Trust(t)}})
	}
	for _, c := range []struct {
		name       string
		addresses  []string
		last       string
		dials      int
		handshakes uint64
		reason     certs.Reason
	}{
		{"a working endpoint", []string{good}, good, 1, 1, ""},
		{"a closed endpoint, then a working one", []string{sockettest.Free(t), good}, good, 2, 1, ""},
		{"an endpoint that does not speak TLS", []string{notTLS}, notTLS, 1, 1, certs.ReasonNotTLS},
		{"no endpoint", nil, "", 0, 0, certs.ReasonNoEndpoint},
	} {
		t.Run(c.name, func(t *testing.T) {
			var counted upstream.Latencies
			o := upstream.Options{Latencies: &counted}
			for _, a := range c.addresses {
				o.Endpoints = append(o.Endpoints, upstream.EndpointOptions{Network: "tcp", Address: a, Stream: client()})
			}
			var trace upstream.Trace
			conn, _, err := upstream.New(o).Dial(upstream.WithTrace(t.Context(), &trace), upstream.Stream)
			if err == nil {
				defer conn.Close()
			}
			if got := upstream.ReasonOf(err); got != c.reason {
				t.Errorf("the reason of %v is %q, want %q", err, got, c.reason)
			}
			last := ""
			if trace.Endpoint != nil {
				last = trace.Endpoint.Address()
			}
			if last != c.last || trace.Dials != c.dials || (trace.Connect > 0) != (c.dials > 0) || (trace.Handshake > 0) != (c.handshakes > 0) || trace.Queued != 0 {
				t.Errorf("recorded at %q: %+v", last, trace)
			}
			connects, shakes := counted.Connect.Counts(), counted.Handshake.Counts()
			if connects.Count() != uint64(c.dials) || connects.Total != trace.Connect || shakes.Count() != c.handshakes || shakes.Total != trace.Handshake {
				t.Errorf("counted %+v and %+v", connects, shakes)
			}
		})
	}
}

// The counts belong to the upstream's name and outlive a revision.
func TestRevisionsOfAnUpstreamShareTheirLatencies(t *testing.T) {
	address := listen(t, "tcp", echoOn).String()
	var counted upstream.Latencies
	for range 2 {
		u := upstream.New(upstream.Options{Latencies: &counted, Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: address}}})
		conn, e, err := u.Dial(t.Context(), upstream.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		e.NoteHead(1)
	}
	connects, shakes, heads := counted.Connect.Counts(), counted.Handshake.Counts(), counted.Head.Counts()
	if connects.Count() != 2 || shakes.Count() != 0 || heads.Count() != 2 {
		t.Errorf("%d connects, %d handshakes, %d heads", connects.Count(), shakes.Count(), heads.Count())
	}
}
