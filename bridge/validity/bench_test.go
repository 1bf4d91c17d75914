//go:build unix

package validity_test

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/validity"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// processorTime returns the processor time that the process has used.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRevocationList measures what a new revocation list costs while 10,000 clients
// with a certificate each are connected: the processor time until all are verified again,
// and how long the check of one connection takes meanwhile. On a busy machine the time of
// a check includes waits for a processor.
func BenchmarkRevocationList(b *testing.B) {
	const connections = 10_000
	ca := certstest.NewCA(b)
	front := certstest.Certificate(b, ca.Server(b, "front.example"))
	policy := func(lists ...[]byte) (*certs.Servers, *validity.Policy) {
		server, err := certs.NewServer(certs.ServerOptions{
			Certificates: []*certs.Certificate{front}, ClientAuth: certs.ClientAuthRequired, ClientTrust: []*certs.TrustBundle{ca.TrustCRLs(b, lists...)},
		})
		if err != nil {
			b.Fatal(err)
		}
		servers := certs.NewServers(server)
		return servers, &validity.Policy{Verifier: servers}
	}
	servers, first := policy(ca.CRL(b))
	found := make(chan validity.Finding, 1)
	set := validity.New(validity.Options{Observe: func(f validity.Finding) { found <- f }})
	set.Require(first)
	leaves, members := make([]*x509.Certificate, connections), make([]conn, connections)
	for i := range members {
		leaves[i] = ca.Client(b, "client").Leaf
		state := tls.ConnectionState{PeerCertificates: leaves[i : i+1]}
		if err := servers.For("").Admits(state); err != nil {
			b.Fatal(err)
		}
		set.Add(&members[i].Member, servers.Peer(state), &members[i])
	}
	revoked := 0
	// revoke replaces the list with a list that revokes another client.
	revoke := func() {
		revoked++
		_, next := policy(ca.CRL(b, leaves[:revoked]...))
		set.Require(next)
	}
	wantOne := func(b *testing.B, f validity.Finding) {
		if f.Count != 1 || f.Reason != certs.ReasonRevoked {
			b.Fatalf("found %+v", f)
		}
	}
	b.Run("processor time", func(b *testing.B) {
		var used time.Duration
		for b.Loop() {
			begun := processorTime(b)
			revoke()
			wantOne(b, <-found)
			used += processorTime(b) - begun
		}
		b.ReportMetric(float64(used.Microseconds())/1000/float64(b.N), "CPU-ms/list")
	})
	b.Run("checks during a run", func(b *testing.B) {
		var took []time.Duration
		for b.Loop() {
			revoke()
			for i, done := connections-1, false; !done; i = (i + connections - 1) % connections {
				begun := time.Now()
				members[i].Check()
				took = append(took, time.Since(begun))
				select {
				case f := <-found:
					wantOne(b, f)
					done = true
				default:
				}
			}
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)*999/1000].Nanoseconds())/1000, "p99.9-µs")
	})
}
