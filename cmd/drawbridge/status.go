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

func newStatus(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what is live: listeners, upstreams, and whatever is down and why",
		Long: `Status shows what is true of the running gateway now: its listeners with the
addresses they are bound to, its upstreams' endpoints with the last failure of
each, and every resource that could not be made live, with the reason.

-o json and yaml hold the answers of StatusService: {"status": …, "upstreams": […]}.`,
		Example: "  drawbridge status\n  drawbridge status -o json | jq .status.problems",
		Args:    cobra.NoArgs,
	}
	output := formatFlag(cmd)
	conn := c.connectFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cl, err := conn.dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		st, err := cl.status.GetStatus(cmd.Context(), &adminv1.GetStatusRequest{})
		if err != nil {
			return cl.failure(err, nil)
		}
		ups, err := cl.status.ListUpstreams(cmd.Context(), &adminv1.StatusServiceListUpstreamsRequest{})
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
		return writeStatus(c.out, st, ups.GetUpstreams())
	}
	return cmd
}

func writeStatusJSON(w io.Writer, st *adminv1.GetStatusResponse, ups *adminv1.StatusServiceListUpstreamsResponse) error {
	status, err := protojson.Marshal(st)
	if err != nil {
		return err
	}
	upstreams := make([]json.RawMessage, 0, len(ups.GetUpstreams()))
	for _, u := range ups.GetUpstreams() {
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

func writeStatus(w io.Writer, st *adminv1.GetStatusResponse, ups []*adminv1.UpstreamStatus) error {
	ready := "ready"
	if !st.GetReady() {
		ready = "NOT READY"
	}
	n := st.GetCounts()
	fmt.Fprintf(w, "Drawbridge %s, revision %d, %s, up %v\n", printable(st.GetVersion()), st.GetRevision(), ready, st.GetUptime().AsDuration().Truncate(time.Second))
	fmt.Fprintf(w, "%s, %s, %s, %s, %s\n", count(int(n.GetListeners()), "listener"), count(int(n.GetRoutes()), "route"),
		count(int(n.GetUpstreams()), "upstream"), count(int(n.GetCertificates()), "certificate"), count(int(n.GetTrustBundles()), "trust bundle"))

	if len(st.GetListeners()) > 0 {
		t := &table{header: []string{"LISTENER", "PROTOCOL", "ADDRESS", "STATE", "OPEN", "ACCEPTED"}}
		for _, l := range st.GetListeners() {
			address := l.GetBoundAddress()
			if address == "" {
				address = l.GetAddress()
			}
			t.add(l.GetName(), word(l.GetProtocol()), address, listenerState(l), fmt.Sprint(l.GetConnections()), fmt.Sprint(l.GetAccepted()))
		}
		fmt.Fprintln(w)
		if err := t.write(w); err != nil {
			return err
		}
	}
	if len(ups) > 0 {
		fmt.Fprintln(w)
		if err := endpointTable(ups, time.Now()).write(w); err != nil {
			return err
		}
	}
	if len(st.GetProblems()) > 0 {
		t := &table{header: []string{"DOWN", "NAME", "REASON"}}
		for _, p := range st.GetProblems() {
			t.add(kindLabel(p.GetKind()), p.GetName(), p.GetReason())
		}
		fmt.Fprintln(w)
		if err := t.write(w); err != nil {
			return err
		}
	}
	if len(st.GetWarnings()) > 0 {
		fmt.Fprintln(w)
		showWarnings(w, st.GetWarnings(), nil)
	}
	return nil
}

func endpointTable(ups []*adminv1.UpstreamStatus, now time.Time) *table {
	t := &table{header: []string{"UPSTREAM", "ENDPOINT", "HEALTH", "OPEN", "MADE", "REQUESTS", "HANDSHAKES", "CERTIFICATE", "LAST FAILURE"}}
	for _, u := range ups {
		if u.GetReason() != "" && len(u.GetEndpoints()) == 0 {
			t.add(u.GetName(), "", "down", "", "", "", "", "", u.GetReason())
		}
		for _, e := range u.GetEndpoints() {
			health := lower(e.GetHealth())
			if e.GetHealth() == adminv1.EndpointHealth_ENDPOINT_HEALTH_UNKNOWN {
				health = "not tried"
			}
			if e.GetBackup() {
				health += ", backup"
			}
			if e.GetDraining() {
				health += ", draining"
			}
			t.add(u.GetName(), e.GetAddress(), health, fmt.Sprint(e.GetConnections()), fmt.Sprint(e.GetConnectionsMade()), fmt.Sprint(e.GetRequests()),
				fmt.Sprintf("%d full, %d resumed", e.GetHandshakesFull(), e.GetHandshakesResumed()), presented(e.GetCertificate(), now), lastFailure(u, e, now))
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
	if u.GetReason() != "" {
		return u.GetReason()
	}
	f := e.GetLastFailure()
	if f == nil {
		return ""
	}
	var total uint64
	for _, n := range e.GetFailures() {
		total += n.GetCount()
	}
	ago := now.Sub(f.GetTime().AsTime()).Truncate(time.Second)
	return strings.TrimSpace(fmt.Sprintf("%s %v ago (%d in all): %s", word(f.GetReason()), max(ago, 0), total, f.GetMessage()))
}
