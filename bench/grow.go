package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/drawbridge-gateway/drawbridge/bench/keys"
	"github.com/drawbridge-gateway/drawbridge/bench/load"
	"github.com/drawbridge-gateway/drawbridge/bench/stats"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Measurements of a large configuration beside CPU per request, by the names
// of their columns.
const (
	applyAll = "apply all ms"
	putOne   = "put p50 ms"
	putSlow  = "put p99 ms"
	dryRun   = "dry run p50 ms"
	memory   = "RssAnon MiB"
)

var growColumns = []string{applyAll, putOne, putSlow, dryRun, memory}

// writes is how often one upstream of many is changed.
const writes = 40

// grow configures a new gateway with the row's number of upstreams and routes,
// changes one of them repeatedly, and then sends requests through some.
func (s *site) grow(ctx context.Context) (sample, error) {
	n := s.row.work.config - 1 // one upstream already exists
	conn, err := grpc.NewClient("unix:"+s.running.AdminSocket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return sample{}, err
	}
	defer conn.Close()
	admin := adminv1.NewAdminServiceClient(conn)

	more := map[string]float64{}
	var resources []*adminv1.Resource
	for i := range n {
		resources = append(resources,
			&adminv1.Resource{Kind: &adminv1.Resource_Upstream{Upstream: s.upstream(i, 1)}},
			&adminv1.Resource{Kind: &adminv1.Resource_Route{Route: routeTo(i)}})
	}
	start := time.Now()
	if _, err := admin.Apply(ctx, &adminv1.ApplyRequest{Resources: resources}); err != nil {
		return sample{}, fmt.Errorf("apply: %w", err)
	}
	more[applyAll] = milliseconds(time.Since(start))
	resources = nil

	put := func(dry bool) ([]float64, error) {
		var took []float64
		for i := range writes {
			start := time.Now()
			if _, err := admin.PutUpstream(ctx, &adminv1.PutUpstreamRequest{
				Upstream: s.upstream(i*n/writes, int32(2+i)),
				Options:  &adminv1.WriteOptions{DryRun: dry},
			}); err != nil {
				return nil, fmt.Errorf("put: %w", err)
			}
			took = append(took, milliseconds(time.Since(start)))
		}
		return took, nil
	}
	dry, err := put(true)
	if err != nil {
		return sample{}, err
	}
	wet, err := put(false)
	if err != nil {
		return sample{}, err
	}
	more[dryRun], more[putOne], more[putSlow] = stats.Quantile(dry, 0.5), stats.Quantile(wet, 0.5), stats.Quantile(wet, 0.99)
	anon, err := s.running.Tree.Anon()
	if err != nil {
		return sample{}, err
	}
	more[memory] = float64(anon) / (1 << 20)

	// Use several hosts, so that the result does not depend on a single route.
	hosts := make([]string, 8)
	for i := range hosts {
		hosts[i] = hostOf(i * n / len(hosts))
	}
	got, err := s.drive(ctx, load.HTTPHosts(64, 1<<10, load.Requests, hosts), 64)
	got.More = more
	return got, err
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

// upstream returns the ith upstream, with the same settings as the gateway's
// first upstream.
func (s *site) upstream(i int, weight int32) *adminv1.Upstream {
	return &adminv1.Upstream{
		Name:      fmt.Sprintf("u%05d", i),
		Endpoints: []*adminv1.Endpoint{{Address: s.backend.Address(), Weight: &weight}},
		Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{
			Certificate: "client", TrustBundles: []string{"bench"}, ServerName: keys.BackendName,
		}},
	}
}

// routeTo returns the route of the ith host to the ith upstream.
func routeTo(i int) *adminv1.Route {
	return &adminv1.Route{
		Name: fmt.Sprintf("r%05d", i), Listeners: []string{"bench"},
		Match: &adminv1.RouteMatch{Hosts: []string{hostOf(i)}},
		Action: &adminv1.Route_Forward{Forward: &adminv1.Forward{
			Upstreams: []*adminv1.WeightedUpstream{{Name: fmt.Sprintf("u%05d", i)}},
		}},
	}
}

func hostOf(i int) string { return fmt.Sprintf("h%05d.bench.test", i) }
