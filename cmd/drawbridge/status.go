package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const statusLong = `Status shows the current state of the running gateway:
  - listeners, with the addresses they are bound to
  - endpoints, with their handshakes (and why full ones were not resumed), their
    last failure, or why they take no traffic
  - results of health checks and of DNS lookups, and warm connections, where
    they are configured
  - connections by client certificate, where an upstream has several
  - failed verifications that VERIFICATION_REPORT_ONLY accepted
  - resources that are down, with the reason

With --certificates it shows every certificate in use instead, the soonest to
expire first: the gateway's own, the CAs and revocation lists of trust bundles,
and those that upstreams' endpoints presented. ("get certificates" shows the
configured ones.) Below the table it names the CAs that are no longer needed:
nothing has verified by them for --unused-for.

-o json and yaml hold the responses of StatusService: {"status": …, "upstreams": […]},
or with --certificates {"certificates": […]}.`

func newStatus(c *cli) *cobra.Command {
	var certificates bool
	var unusedFor time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the live listeners and upstreams, and what is down and why",
		Long:  statusLong,
		Example: `  drawbridge status
  drawbridge status --certificates
  drawbridge status -o json | jq .status.problems`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&certificates, "certificates", false, "show every certificate in use by days left, including those of upstreams and CAs")
	cmd.Flags().DurationVar(&unusedFor, "unused-for", 24*time.Hour, "with --certificates: how long nothing may have verified by a CA before it is called no longer needed; at least as long as the pauses between a client's connections")
	output := formatFlag(cmd)
	conn := c.connectFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("unused-for") && !certificates {
			return usageError("--unused-for needs --certificates")
		}
		cl, err := conn.dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		if certificates {
			return cl.failure(c.showCertificates(cmd.Context(), cl, *output, unusedFor), nil)
		}
		st, err := cl.getStatus(cmd.Context())
		if err != nil {
			return cl.failure(err, nil)
		}
		ups, err := cl.upstreamStatuses(cmd.Context())
		if err != nil {
			return cl.failure(err, nil)
		}
		switch *output {
		case formatJSON:
			return writeStatusJSON(c.out, st, ups)
		case formatYAML:
			var text bytes.Buffer
			if err := writeStatusJSON(&text, st, ups); err != nil {
				return err
			}
			yaml, err := manifest.YAMLFromJSON(text.Bytes())
			if err != nil {
				return err
			}
			_, err = c.out.Write(yaml)
			return err
		}
		return writeStatus(c.out, c.paint(c.out), st, ups)
	}
	return cmd
}

func writeStatusJSON(w io.Writer, st *adminv1.GetStatusResponse, ups []*adminv1.UpstreamStatus) error {
	status, err := protojson.Marshal(st)
	if err != nil {
		return err
	}
	upstreams := make([]json.RawMessage, 0, len(ups))
	for _, u := range ups {
		text, err := protojson.Marshal(u)
		if err != nil {
			return err
		}
		upstreams = append(upstreams, text)
	}
	return writeJSON(w, struct {
		Status    json.RawMessage   `json:"status"`
		Upstreams []json.RawMessage `json:"upstreams"`
	}{status, upstreams})
}

func writeStatus(w io.Writer, p paint, st *adminv1.GetStatusResponse, ups []*adminv1.UpstreamStatus) error {
	ready := p.good("ready")
	if !st.GetReady() {
		ready = p.bad("NOT READY")
	}
	n := st.GetCounts()
	fmt.Fprintf(w, "Drawbridge %s, revision %d, %s, up %v\n", printable(st.GetVersion()), st.GetRevision(), ready, st.GetUptime().AsDuration().Truncate(time.Second))
	fmt.Fprintf(w, "%s, %s, %s, %s, %s\n", count(int(n.GetListeners()), "listener"), count(int(n.GetRoutes()), "route"),
		count(int(n.GetUpstreams()), "upstream"), count(int(n.GetCertificates()), "certificate"), count(int(n.GetTrustBundles()), "trust bundle"))

	if pending := st.GetPending(); pending != nil {
		fmt.Fprintf(w, "%s revision %d by %s: at %s the gateway rolls back to revision %d, unless confirmed\n", p.caution("PENDING"), pending.GetRevision(),
			printable(pending.GetPrincipal()), pending.GetExpireTime().AsTime().Local().Format("15:04:05"), pending.GetRollbackTo())
	}
	if d := st.GetDescriptors(); d.GetPausedListeners() > 0 {
		fmt.Fprintf(w, "%s %s: clients use %d of %d file descriptors and upstreams %d; the rest is reserved\n",
			p.bad("NOT ACCEPTING"), count(int(d.GetPausedListeners()), "listener"), d.GetClients(), d.GetLimit(), d.GetUpstreams())
	}

	problems := &table{header: []string{"DOWN", "NAME", "REASON"}}
	for _, p := range st.GetProblems() {
		problems.add(kindLabel(p.GetKind()), p.GetName(), p.GetReason())
	}
	for _, t := range []*table{
		boundTable(st.GetListeners()), endpointTable(ups, time.Now()), checkTable(ups, time.Now()), dnsTable(ups, time.Now()), warmTable(ups), reportedTable(ups), identityTable(ups), problems,
	} {
		if len(t.rows) == 0 {
			continue
		}
		fmt.Fprintln(w)
		if err := t.write(w, p); err != nil {
			return err
		}
	}
	if len(st.GetWarnings()) > 0 {
		fmt.Fprintln(w)
		showWarnings(w, st.GetWarnings(), nil)
	}
	return nil
}

func boundTable(listeners []*adminv1.ListenerStatus) *table {
	t := &table{header: []string{"LISTENER", "PROTOCOL", "ADDRESS", "STATE", "OPEN", "ACCEPTED"}}
	for _, l := range listeners {
		address := l.GetBoundAddress()
		if address == "" {
			address = l.GetAddress()
		}
		t.add(l.GetName(), word(l.GetProtocol()), address, listenerState(l), fmt.Sprint(l.GetConnections()), fmt.Sprint(l.GetAccepted()))
	}
	return t
}

func endpointTable(ups []*adminv1.UpstreamStatus, now time.Time) *table {
	t := &table{header: []string{"UPSTREAM", "ENDPOINT", "HEALTH", "OPEN", "MADE", "REQUESTS", "HANDSHAKES", "CERTIFICATE", "LAST FAILURE"}}
	for _, u := range ups {
		if u.GetReason() != adminv1.Reason_REASON_UNSPECIFIED && len(u.GetEndpoints()) == 0 {
			t.add(u.GetName(), "", "down", "", "", "", "", "", why(u))
		}
		for _, e := range u.GetEndpoints() {
			health := lower(e.GetHealth())
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
				health += " (check: " + word(e.GetCheck().GetReason()) + ")"
			}
			t.add(u.GetName(), e.GetAddress(), health, fmt.Sprint(e.GetConnections()), fmt.Sprint(e.GetConnectionsMade()), fmt.Sprint(e.GetRequests()),
				handshakes(e), presented(e.GetCertificate(), now), lastFailure(u, e, now))
		}
		if n := unlisted(u); n > 0 {
			t.add(u.GetName(), fmt.Sprintf("and %d more", n), "", "", "", "", "", "", "")
		}
	}
	return t
}

// unlisted returns how many endpoints the status of an upstream does not list.
func unlisted(u *adminv1.UpstreamStatus) int {
	return max(int(u.GetEndpointCount())-len(u.GetEndpoints()), 0)
}

// dnsTable lists the upstreams whose endpoints come from DNS.
func dnsTable(ups []*adminv1.UpstreamStatus, now time.Time) *table {
	t := &table{header: []string{"UPSTREAM", "BY DNS", "CONFIRMED", "ASKED AGAIN", "ERROR"}}
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
		t.add(u.GetName(), count(n, "endpoint"), confirmed, next, d.GetError())
	}
	return t
}

// handshakes counts full and resumed handshakes, the full ones by reason: "5 full (3
// NO_TICKET, 2 REFUSED), 7 resumed", "1 full (NO_TICKET), 0 resumed".
func handshakes(e *adminv1.EndpointStatus) string {
	var why []string
	for _, f := range e.GetFullHandshakes() {
		reason := word(f.GetReason())
		if f.GetCount() != e.GetHandshakesFull() {
			reason = fmt.Sprintf("%d %s", f.GetCount(), reason)
		}
		why = append(why, reason)
	}
	full := fmt.Sprintf("%d full", e.GetHandshakesFull())
	if len(why) > 0 {
		full += " (" + strings.Join(why, ", ") + ")"
	}
	return fmt.Sprintf("%s, %d resumed", full, e.GetHandshakesResumed())
}

// checkTable lists the endpoints that have health checks.
func checkTable(ups []*adminv1.UpstreamStatus, now time.Time) *table {
	t := &table{header: []string{"UPSTREAM", "ENDPOINT", "CHECK", "LAST", "TOOK", "CHECKS", "FAILED"}}
	for _, u := range ups {
		for _, e := range u.GetEndpoints() {
			c := e.GetCheck()
			if c == nil {
				continue
			}
			state, last, took := "waits for its first", "", ""
			if c.GetChecked() {
				last = fmt.Sprintf("%v ago", max(now.Sub(c.GetCheckTime().AsTime()), 0).Truncate(time.Second))
				took = c.GetDuration().AsDuration().Round(100 * time.Microsecond).String()
				state = "well"
				if !c.GetHealthy() {
					state = "not well"
				}
				if c.GetReason() != adminv1.Reason_REASON_UNSPECIFIED {
					state += ", " + word(c.GetReason())
				}
			}
			t.add(u.GetName(), e.GetAddress(), state, last, took, fmt.Sprint(c.GetChecks()), fmt.Sprint(c.GetFailures()))
		}
	}
	return t
}

// warmTable lists the warm connections.
func warmTable(ups []*adminv1.UpstreamStatus) *table {
	t := &table{header: []string{"UPSTREAM", "ENDPOINT", "WARM", "USED", "MISSED", "EXPIRED", "CLOSED"}}
	for _, u := range ups {
		for _, e := range u.GetEndpoints() {
			if w := e.GetWarm(); w != nil {
				t.add(u.GetName(), e.GetAddress(), fmt.Sprintf("%d of %d", w.GetReady(), w.GetSize()),
					fmt.Sprint(w.GetUsed()), fmt.Sprint(w.GetMissed()), fmt.Sprint(w.GetExpired()), fmt.Sprint(w.GetClosed()))
			}
		}
	}
	return t
}

// reportedTable lists the failures that VERIFICATION_REPORT_ONLY accepted.
func reportedTable(ups []*adminv1.UpstreamStatus) *table {
	t := &table{header: []string{"NOT REFUSED", "ENDPOINT", "REASON", "COUNT"}}
	for _, u := range ups {
		for _, e := range u.GetEndpoints() {
			for _, f := range e.GetReported() {
				t.add(u.GetName(), e.GetAddress(), word(f.GetReason()), fmt.Sprint(f.GetCount()))
			}
		}
	}
	return t
}

// identityTable lists the upstreams whose open connections have different client
// certificates, as during a rotation.
func identityTable(ups []*adminv1.UpstreamStatus) *table {
	t := &table{header: []string{"UPSTREAM", "OPEN", "MADE WITH CLIENT CERTIFICATE"}}
	for _, u := range ups {
		if len(u.GetConnectionsByCertificate()) < 2 {
			continue
		}
		for _, n := range u.GetConnectionsByCertificate() {
			fingerprint := n.GetSha256Fingerprint()
			if fingerprint == "" {
				fingerprint = "none"
			}
			t.add(u.GetName(), fmt.Sprint(n.GetConnections()), fingerprint)
		}
	}
	return t
}

func presented(info *adminv1.CertificateInfo, now time.Time) string {
	if info == nil {
		return ""
	}
	left := daysLeft(info, now)
	if left != "expired" {
		left += " days left"
	}
	return info.GetSubject() + ", " + left
}

func lastFailure(u *adminv1.UpstreamStatus, e *adminv1.EndpointStatus, now time.Time) string {
	if u.GetReason() != adminv1.Reason_REASON_UNSPECIFIED {
		return why(u)
	}
	if why := e.GetUnavailableReason(); why != "" && !e.GetDraining() {
		return why
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
	return strings.TrimSpace(fmt.Sprintf("%s %v ago (%d in all): %s", word(f.GetReason()), max(ago, 0), total, f.GetMessage()))
}
