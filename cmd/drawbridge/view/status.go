// Package view shows messages of the API to people: as tables, and as text with the cause of
// a failure first.
//
// It only reads its arguments, and calls no gateway.
package view

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// WriteStatus writes the state of a gateway: a summary, then one table for each kind that
// has entries.
func WriteStatus(w io.Writer, p terminal.Paint, st *adminv1.GetStatusResponse, ups []*adminv1.UpstreamStatus) error {
	ready := p.Good("ready")
	if !st.GetReady() {
		ready = p.Bad("NOT READY")
	}
	n := st.GetCounts()
	sealed := ""
	if st.GetSealed() {
		sealed = ", store sealed"
	}
	fmt.Fprintf(w, "Drawbridge %s, revision %d, %s, up %v%s\n", terminal.Printable(st.GetVersion()), st.GetRevision(), ready, st.GetUptime().AsDuration().Truncate(time.Second), sealed)
	fmt.Fprintf(w, "%s, %s, %s, %s, %s\n", terminal.Count(int(n.GetListeners()), "listener"), terminal.Count(int(n.GetRoutes()), "route"),
		terminal.Count(int(n.GetUpstreams()), "upstream"), terminal.Count(int(n.GetCertificates()), "certificate"), terminal.Count(int(n.GetTrustBundles()), "trust bundle"))

	if pending := st.GetPending(); pending.GetRollout() != nil {
		fmt.Fprintf(w, "%s revision %d by %s: %s of the fleet run it first, then all gateways or none\n", p.Caution("ROLLOUT"), pending.GetRevision(),
			terminal.Printable(pending.GetPrincipal()), terminal.Count(len(pending.GetRollout().GetCanaries()), "gateway"))
	} else if pending != nil {
		fmt.Fprintf(w, "%s revision %d by %s: at %s the gateway rolls back to revision %d, unless confirmed\n", p.Caution("PENDING"), pending.GetRevision(),
			terminal.Printable(pending.GetPrincipal()), pending.GetExpireTime().AsTime().Local().Format("15:04:05"), pending.GetRollbackTo())
	}
	if d := st.GetDescriptors(); d.GetPausedListeners() > 0 {
		fmt.Fprintf(w, "%s %s: clients use %d of %d file descriptors and upstreams %d; the rest is reserved\n",
			p.Bad("NOT ACCEPTING"), terminal.Count(int(d.GetPausedListeners()), "listener"), d.GetClients(), d.GetLimit(), d.GetUpstreams())
	}

	for _, missing := range st.GetConfinement().GetMissing() {
		fmt.Fprintf(w, "%s %s\n", p.Caution("NOT CONFINED"), terminal.Printable(missing))
	}

	problems := &terminal.Table{Header: []string{"DOWN", "NAME", "REASON"}}
	for _, p := range st.GetProblems() {
		problems.Add(KindLabel(p.GetKind()), p.GetName(), p.GetReason())
	}
	for _, t := range []*terminal.Table{
		boundTable(st.GetListeners()), endpointTable(ups, time.Now()), checkTable(ups, time.Now()), dnsTable(ups, time.Now()), warmTable(ups), reportedTable(ups), identityTable(ups), problems,
	} {
		if len(t.Rows) == 0 {
			continue
		}
		fmt.Fprintln(w)
		if err := t.Write(w, p); err != nil {
			return err
		}
	}
	if len(st.GetWarnings()) > 0 {
		fmt.Fprintln(w)
		WriteWarnings(w, st.GetWarnings(), nil)
	}
	return nil
}

func boundTable(listeners []*adminv1.ListenerStatus) *terminal.Table {
	t := &terminal.Table{Header: []string{"LISTENER", "PROTOCOL", "ADDRESS", "STATE", "OPEN", "ACCEPTED"}}
	for _, l := range listeners {
		address := l.GetBoundAddress()
		if address == "" {
			address = l.GetAddress()
		}
		t.Add(l.GetName(), format.Word(l.GetProtocol()), address, listenerState(l), fmt.Sprint(l.GetConnections()), fmt.Sprint(l.GetAccepted()))
	}
	return t
}

func endpointTable(ups []*adminv1.UpstreamStatus, now time.Time) *terminal.Table {
	t := &terminal.Table{Header: []string{"UPSTREAM", "ENDPOINT", "HEALTH", "OPEN", "MADE", "REQUESTS", "HANDSHAKES", "CERTIFICATE", "LAST FAILURE"}}
	for _, u := range ups {
		if u.GetReason() != adminv1.Reason_REASON_UNSPECIFIED && len(u.GetEndpoints()) == 0 {
			t.Add(u.GetName(), "", "down", "", "", "", "", "", downReason(u))
		}
		for _, e := range u.GetEndpoints() {
			health := format.Lower(e.GetHealth())
			if e.GetHealth() == adminv1.EndpointHealth_ENDPOINT_HEALTH_UNKNOWN {
				health = "not tried"
			}
			if e.GetBackup() {
				health += ", backup"
			}
			switch {
			case e.GetDraining():
				health += ", draining"
			case e.GetEjectionEndTime() != nil:
				health += fmt.Sprintf(", ejected for %v", max(e.GetEjectionEndTime().AsTime().Sub(now), 0).Round(time.Second))
			case e.GetCheck() != nil && !e.GetCheck().GetChecked():
				health = "not checked yet"
			case e.GetCheck() != nil && !e.GetCheck().GetHealthy() && e.GetCheck().GetReason() != adminv1.Reason_REASON_UNSPECIFIED:
				health += " (check: " + format.Word(e.GetCheck().GetReason()) + ")"
			}
			t.Add(u.GetName(), e.GetAddress(), health, fmt.Sprint(e.GetConnections()), fmt.Sprint(e.GetConnectionsMade()), fmt.Sprint(e.GetRequests()),
				handshakes(e), presented(e.GetCertificate(), now), lastFailure(u, e, now))
		}
		if n := unlisted(u); n > 0 {
			t.Add(u.GetName(), fmt.Sprintf("and %d more", n), "", "", "", "", "", "", "")
		}
	}
	return t
}

// unlisted returns how many endpoints the status of an upstream does not list.
func unlisted(u *adminv1.UpstreamStatus) int {
	return max(int(u.GetEndpointCount())-len(u.GetEndpoints()), 0)
}

// handshakes counts full and resumed handshakes, the full ones by reason: "5 full (3
// NO_TICKET, 2 REFUSED), 7 resumed", "1 full (NO_TICKET), 0 resumed".
func handshakes(e *adminv1.EndpointStatus) string {
	var reasons []string
	for _, f := range e.GetFullHandshakes() {
		reason := format.Word(f.GetReason())
		if f.GetCount() != e.GetHandshakesFull() {
			reason = fmt.Sprintf("%d %s", f.GetCount(), reason)
		}
		reasons = append(reasons, reason)
	}
	full := fmt.Sprintf("%d full", e.GetHandshakesFull())
	if len(reasons) > 0 {
		full += " (" + strings.Join(reasons, ", ") + ")"
	}
	return fmt.Sprintf("%s, %d resumed", full, e.GetHandshakesResumed())
}

func presented(info *adminv1.CertificateInfo, now time.Time) string {
	if info == nil {
		return ""
	}
	left := DaysLeft(info, now)
	if left != "expired" {
		left += " days left"
	}
	return info.GetSubject() + ", " + left
}

func lastFailure(u *adminv1.UpstreamStatus, e *adminv1.EndpointStatus, now time.Time) string {
	if u.GetReason() != adminv1.Reason_REASON_UNSPECIFIED {
		return downReason(u)
	}
	if reason := e.GetUnavailableReason(); reason != "" && !e.GetDraining() {
		return reason
	}
	f := e.GetLastFailure()
	if f == nil {
		return ""
	}
	var total int64
	for _, n := range e.GetFailures() {
		total += n.GetCount()
	}
	ago := now.Sub(f.GetFailureTime().AsTime()).Truncate(time.Second)
	return strings.TrimSpace(fmt.Sprintf("%s %v ago (%d in all): %s", format.Word(f.GetReason()), max(ago, 0), total, f.GetMessage()))
}
