package soak

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A disturber changes, rotates, breaks and replaces things.
type disturber struct {
	site  *site
	tally *tally
}

// repeat calls f at an interval until ctx ends. An f that has begun is completed.
func (d *disturber) repeat(ctx context.Context, every time.Duration, f func(n int)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f(n)
		}
	}
}

// write applies resources. A write may fail only while an upgrade owns the store, or
// just after an upgrade has replaced the process.
func (d *disturber) write(kind string, resources ...*adminv1.Resource) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	resp, err := d.site.gateway.admin.Apply(ctx, &adminv1.ApplyRequest{Resources: resources})
	d.wrote(kind, resp.GetChange().GetRevision(), err)
}

func (d *disturber) wrote(kind string, revision int64, err error) {
	switch status.Code(err) {
	case codes.OK:
		d.tally.count(kind)
		d.site.mu.Lock()
		d.site.written = max(d.site.written, revision)
		d.site.mu.Unlock()
	case codes.Unavailable:
		d.tally.permit(kind, "refused during an upgrade")
	default:
		d.tally.fail(kind, err)
	}
}

// change changes an upstream in use, and adds or removes a listener and its route.
func (d *disturber) change(n int) {
	const kind = "configuration change"
	up := d.site.upstream("web", d.site.servers[1].Address())
	up.Labels = map[string]string{"n": fmt.Sprint(n)}
	switch n % 3 {
	case 0:
		d.write(kind, &adminv1.Resource{Kind: &adminv1.Resource_Upstream{Upstream: up}})
	case 1:
		weight := int32(1 + n%7)
		up.Endpoints[0].Weight = &weight
		d.write(kind, &adminv1.Resource{Kind: &adminv1.Resource_Upstream{Upstream: up}},
			&adminv1.Resource{Kind: &adminv1.Resource_Listener{Listener: &adminv1.Listener{Name: "extra", Address: "127.0.0.1:0", Protocol: adminv1.Protocol_PROTOCOL_HTTP, Upstream: "web"}}})
	case 2:
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		resp, err := d.site.gateway.admin.DeleteListener(ctx, &adminv1.DeleteListenerRequest{Name: "extra"})
		if status.Code(err) == codes.NotFound { // an upgrade made the creation fail
			return
		}
		d.wrote(kind, resp.GetChange().GetRevision(), err)
	}
}

// rotate replaces every certificate of the gateway.
func (d *disturber) rotate(int) {
	certificates, err := d.site.certificates()
	if err != nil {
		d.tally.fail("rotation", err)
		return
	}
	d.write("rotation", certificates...)
}

// outageTime is how long an endpoint stays down.
const outageTime = 500 * time.Millisecond

// breakEndpoint kills an endpoint in the middle of its responses, and restarts it.
func (d *disturber) breakEndpoint(n int) {
	s, e := d.site, d.site.fragile[n%len(d.site.fragile)]
	s.mu.Lock()
	s.outages = append(s.outages, outage{began: time.Now()})
	s.mu.Unlock()
	e.kill()
	time.Sleep(outageTime)
	if err := e.restart(); err != nil {
		d.tally.fail("restart of an endpoint", err)
	}
	s.mu.Lock()
	s.outages[len(s.outages)-1].ended = time.Now()
	s.mu.Unlock()
	d.tally.count("endpoint failure")
}

// upgrade replaces the process of the gateway.
func (d *disturber) upgrade(int) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := d.site.gateway.upgrade(ctx); err != nil {
		d.tally.fail("upgrade", err)
		return
	}
	d.tally.count("upgrade")
}
