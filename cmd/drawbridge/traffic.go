package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A traffic holds counts of failures. When an upstream or listener is replaced, its
// counts begin again at zero.
type traffic struct {
	failures           map[failureKey]int64
	serverErrors, lost map[string]int64 // counts by listener
}

// A failureKey is a key by which failures are counted.
type failureKey struct {
	place  string // the endpoint or listener
	reason string // a text for people
}

// readTraffic reads the counts and the status.
func readTraffic(ctx context.Context, cl *client.Client) (*traffic, *adminv1.GetStatusResponse, error) {
	status, err := cl.WholeStatus(ctx)
	if err != nil {
		return nil, nil, err
	}
	upstreams, err := cl.UpstreamStatuses(ctx)
	if err != nil {
		return nil, nil, err
	}
	t := &traffic{failures: map[failureKey]int64{}, serverErrors: map[string]int64{}, lost: map[string]int64{}}
	for _, l := range status.GetListeners() {
		if l.GetState() == adminv1.ListenerState_LISTENER_STATE_DRAINING {
			continue
		}
		t.serverErrors[l.GetName()], t.lost[l.GetName()] = l.GetServerErrors(), l.GetConnectionsLost()
		for _, f := range l.GetHandshakeFailures() {
			t.failures[failureKey{"listener " + l.GetName(), "client " + format.Word(f.GetReason())}] = f.GetCount()
		}
	}
	for _, u := range upstreams {
		for _, e := range u.GetEndpoints() {
			for _, f := range e.GetFailures() {
				t.failures[failureKey{"upstream " + u.GetName() + " " + e.GetAddress(), format.Word(f.GetReason())}] = f.GetCount()
			}
		}
	}
	return t, status, nil
}

// more returns the growth of a count, even if the count began again.
func more(now, before int64) int64 {
	if now < before {
		return now
	}
	return now - before
}

// text describes the failures since an earlier time.
func (t *traffic) text(since *traffic, p terminal.Paint) string {
	byReason := map[string]int64{}
	for k, n := range t.failures {
		if n = more(n, since.failures[k]); n > 0 {
			byReason[k.reason] += n
		}
	}
	var reasons []string
	for _, r := range slices.Sorted(maps.Keys(byReason)) {
		reasons = append(reasons, fmt.Sprintf("%s %d", r, byReason[r]))
	}
	var errors, lost int64
	for name, n := range t.serverErrors {
		errors += more(n, since.serverErrors[name])
	}
	for name, n := range t.lost {
		lost += more(n, since.lost[name])
	}
	colored := func(isBad bool, text string) string {
		if isBad {
			return p.Bad(text)
		}
		return p.Good(text)
	}
	failures := cmp.Or(strings.Join(reasons, ", "), "none")
	return colored(len(reasons) > 0, "failures: "+failures) + "  " +
		colored(errors > 0, fmt.Sprintf("5xx: %d", errors)) + "  " + colored(lost > 0, fmt.Sprintf("connections lost: %d", lost))
}
