package main

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// showImpact prints which connections, requests and sessions a change ends.
func (c *cli) showImpact(i *adminv1.Impact) error {
	if len(i.GetListeners()) == 0 && len(i.GetUpstreams()) == 0 {
		_, err := fmt.Fprintln(c.Out, "The change ends no connection.")
		return err
	}
	t := &terminal.Table{Header: []string{"IMPACT", "NAME", "CLOSED", "DRAINED", "REQUESTS", "SESSIONS LOST", "ENDPOINTS GONE"}}
	for _, l := range i.GetListeners() {
		sessions := "none"
		if l.GetResumptionLost() {
			sessions = "all"
		}
		t.Add("Listener", l.GetName(), fmt.Sprint(l.GetConnectionsClosed()), fmt.Sprint(l.GetConnectionsDrained()), fmt.Sprint(l.GetRequestsInFlight()), sessions, "")
	}
	for _, u := range i.GetUpstreams() {
		t.Add("Upstream", u.GetName(), fmt.Sprint(u.GetConnectionsClosed()), fmt.Sprint(u.GetConnectionsDrained()), fmt.Sprint(u.GetRequestsInFlight()),
			fmt.Sprint(u.GetSessionsLost()), fmt.Sprint(u.GetEndpointsGone()))
	}
	return c.WriteTable(t)
}

// applyWithImpact applies a request. If the request may delete resources, it first makes a
// dry run and shows the impact.
func (c *cli) applyWithImpact(ctx context.Context, cl *client.Client, f format.Format, req *adminv1.ApplyRequest) (*adminv1.Change, error) {
	deletes := req.GetPrune() != nil || len(req.GetDeletes()) > 0
	if deletes && f == format.Table && !req.GetOptions().GetDryRun() {
		dry := proto.Clone(req).(*adminv1.ApplyRequest)
		dry.Options.DryRun, dry.Options.RequireProbe = true, adminv1.RequireProbe_REQUIRE_PROBE_UNSPECIFIED
		dry.Options.WaitFor, dry.Options.Rollout = nil, nil
		answer, err := cl.Apply(ctx, dry)
		if err != nil {
			return nil, err
		}
		if err := c.showImpact(answer.GetChange().GetImpact()); err != nil {
			return nil, err
		}
	}
	answer, err := cl.Apply(ctx, req)
	return answer.GetChange(), err
}
