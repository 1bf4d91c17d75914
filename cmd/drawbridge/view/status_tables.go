package view

import (
	"fmt"
	"time"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// dnsTable lists the upstreams whose endpoints come from DNS.
func dnsTable(ups []*adminv1.UpstreamStatus, now time.Time) *terminal.Table {
	t := &terminal.Table{Header: []string{"UPSTREAM", "BY DNS", "CONFIRMED", "NEXT LOOKUP", "ERROR"}}
	for _, u := range ups {
		d := u.GetDns()
		if d == nil {
			continue
		}
		n := unlisted(u)
		for _, e := range u.GetEndpoints() {
			if !e.GetDraining() {
				n++
			}
		}
		confirmed, next := "never", ""
		if d.GetResolveTime() != nil {
			confirmed = fmt.Sprintf("%v ago", max(now.Sub(d.GetResolveTime().AsTime()), 0).Truncate(time.Second))
		}
		if d.GetNextResolveTime() != nil {
			next = fmt.Sprintf("in %v", max(d.GetNextResolveTime().AsTime().Sub(now), 0).Round(time.Second))
		}
		t.Add(u.GetName(), terminal.Count(n, "endpoint"), confirmed, next, d.GetError())
	}
	return t
}

// checkTable lists the endpoints that have health checks.
func checkTable(ups []*adminv1.UpstreamStatus, now time.Time) *terminal.Table {
	t := &terminal.Table{Header: []string{"UPSTREAM", "ENDPOINT", "CHECK", "LAST", "TOOK", "CHECKS", "FAILED"}}
	for _, u := range ups {
		for _, e := range u.GetEndpoints() {
			c := e.GetCheck()
			if c == nil {
				continue
			}
			state, last, took := "not checked yet", "", ""
			if c.GetChecked() {
				last = fmt.Sprintf("%v ago", max(now.Sub(c.GetCheckTime().AsTime()), 0).Truncate(time.Second))
				took = c.GetDuration().AsDuration().Round(100 * time.Microsecond).String()
				state = "healthy"
				if !c.GetHealthy() {
					state = "unhealthy"
				}
				if c.GetReason() != adminv1.Reason_REASON_UNSPECIFIED {
					state += ", " + format.Word(c.GetReason())
				}
			}
			t.Add(u.GetName(), e.GetAddress(), state, last, took, fmt.Sprint(c.GetChecks()), fmt.Sprint(c.GetFailures()))
		}
	}
	return t
}

// warmTable lists the warm connections.
func warmTable(ups []*adminv1.UpstreamStatus) *terminal.Table {
	t := &terminal.Table{Header: []string{"UPSTREAM", "ENDPOINT", "WARM", "USED", "MISSED", "EXPIRED", "CLOSED"}}
	for _, u := range ups {
		for _, e := range u.GetEndpoints() {
			if w := e.GetWarm(); w != nil {
				t.Add(u.GetName(), e.GetAddress(), fmt.Sprintf("%d of %d", w.GetReady(), w.GetSize()),
					fmt.Sprint(w.GetUsed()), fmt.Sprint(w.GetMissed()), fmt.Sprint(w.GetExpired()), fmt.Sprint(w.GetClosed()))
			}
		}
	}
	return t
}

// reportedTable lists the failures that VERIFICATION_REPORT_ONLY accepted.
func reportedTable(ups []*adminv1.UpstreamStatus) *terminal.Table {
	t := &terminal.Table{Header: []string{"NOT REFUSED", "ENDPOINT", "REASON", "COUNT"}}
	for _, u := range ups {
		for _, e := range u.GetEndpoints() {
			for _, f := range e.GetReported() {
				t.Add(u.GetName(), e.GetAddress(), format.Word(f.GetReason()), fmt.Sprint(f.GetCount()))
			}
		}
	}
	return t
}

// identityTable lists the upstreams whose open connections have different client
// certificates, for example during a rotation.
func identityTable(ups []*adminv1.UpstreamStatus) *terminal.Table {
	t := &terminal.Table{Header: []string{"UPSTREAM", "OPEN", "MADE WITH CLIENT CERTIFICATE"}}
	for _, u := range ups {
		if len(u.GetConnectionsByCertificate()) < 2 {
			continue
		}
		for _, n := range u.GetConnectionsByCertificate() {
			fingerprint := n.GetSha256Fingerprint()
			if fingerprint == "" {
				fingerprint = "none"
			}
			t.Add(u.GetName(), fmt.Sprint(n.GetConnections()), fingerprint)
		}
	}
	return t
}
