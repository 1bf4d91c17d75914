package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const watchLong = `Watch shows the current revision and then, until it is interrupted, each change of
the configuration as it becomes live and each event: endpoints that go up or down,
are ejected or return, failed handshakes with their reasons, certificates that
expire soon, and changed files.

-o json writes a line for each, -o yaml a document. A change is a
WatchConfigResponse of AdminService: the first holds every resource, each further
one the created or updated resources. An event is {"event": {...}}: an Event of
StatusService whose enum values ("type", "reason" and so on) have no prefix
("HANDSHAKE_FAILURE", "UNKNOWN_CA"). An applied revision is shown only as a change.`

func newWatch(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show the current revision, then each change and event as it happens",
		Long:  watchLong,
		Example: `  drawbridge watch
  drawbridge watch -o json | jq -c 'select(.event) | .event | {type, name, endpoint, reason}'
  drawbridge watch -o json | jq -c 'select(.revision) | {revision, changes}'`,
		Args: cobra.NoArgs,
	}
	output := formatFlag(cmd)
	conn := c.connectFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cl, err := conn.dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		err = cl.watch(cmd.Context(), watchWriter{w: c.out, paint: c.paint(c.out), format: *output})
		switch {
		case cmd.Context().Err() != nil:
			return nil // interrupted: the normal end
		case errors.Is(err, io.EOF):
			return &failure{code: exitUnavailable, summary: "the gateway ended the stream"}
		}
		return cl.failure(err, nil)
	}
	return cmd
}

// watch writes changes and events until one of the streams ends, and returns the error
// that ended it.
func (cl *client) watch(ctx context.Context, w watchWriter) error {
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()

	// Open the event stream first: once its header has arrived, no event after the
	// current revision is missed.
	events, err := cl.status.WatchEvents(ctx, &adminv1.WatchEventsRequest{})
	if err != nil {
		return err
	}
	if _, err := events.Header(); err != nil {
		return err
	}
	updates, err := cl.WatchConfig(ctx, &adminv1.WatchConfigRequest{})
	if err != nil {
		return err
	}
	first, err := recvWhole(updates.Recv)
	if err != nil {
		return err
	}
	if err := w.present(first); err != nil {
		return err
	}

	lines, ended := make(chan func() error), make(chan error, 2)
	reading.Go(func() {
		ended <- relay(ctx, func() (*adminv1.WatchConfigResponse, error) { return recvWhole(updates.Recv) }, lines, w.update)
	})
	reading.Go(func() {
		ended <- relay(ctx, events.Recv, lines, w.event)
	})
	for {
		select {
		case write := <-lines:
			if err := write(); err != nil {
				return err
			}
		case err := <-ended:
			return err
		}
	}
}

// relay sends each message of a stream to the writer until the stream ends.
func relay[M any](ctx context.Context, recv func() (M, error), lines chan<- func() error, write func(M) error) error {
	for {
		m, err := recv()
		if err != nil {
			return err
		}
		select {
		case lines <- func() error { return write(m) }:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A watchWriter writes changes and events as they arrive, one a line.
type watchWriter struct {
	w      io.Writer
	paint  paint
	format format
}

// present writes the revision that is live when the watch begins.
func (w watchWriter) present(u *adminv1.WatchConfigResponse) error {
	if w.format != formatTable {
		return w.update(u)
	}
	_, err := fmt.Fprintf(w.w, "revision %-6d %s\n", u.GetRevision(), count(len(u.GetResources()), "resource"))
	return err
}

// update writes a change of the configuration.
func (w watchWriter) update(u *adminv1.WatchConfigResponse) error {
	if w.format != formatTable {
		text, err := protojson.Marshal(u)
		if err != nil {
			return err
		}
		return w.document(text)
	}
	comment := ""
	if u.GetComment() != "" {
		comment = "   " + w.paint.faint("# "+printable(u.GetComment()))
	}
	var lines bytes.Buffer
	for _, ch := range u.GetChanges() {
		fmt.Fprintf(&lines, "revision %-6d %-8s %s %s%s\n", u.GetRevision(), lower(ch.GetAction()), manifest.KindName(ch.GetKind()), printable(ch.GetName()), comment)
	}
	_, err := w.w.Write(lines.Bytes())
	return err
}

// event writes an event, unless update already writes the same change.
func (w watchWriter) event(e *adminv1.Event) error {
	if e.GetType() == adminv1.EventType_EVENT_TYPE_APPLIED {
		return nil
	}
	if w.format != formatTable {
		text, err := wordsJSON(e)
		if err != nil {
			return err
		}
		return w.document(fmt.Appendf(nil, `{"event":%s}`, text))
	}
	_, err := io.WriteString(w.w, eventLine(w.paint, e)+"\n")
	return err
}

// document writes JSON as a line, or as a document of YAML.
func (w watchWriter) document(text []byte) error {
	var out bytes.Buffer
	if w.format == formatYAML {
		yaml, err := manifest.YAMLFromJSON(text)
		if err != nil {
			return err
		}
		out.WriteString("---\n")
		out.Write(yaml)
	} else {
		if err := json.Compact(&out, text); err != nil {
			return err
		}
		out.WriteByte('\n')
	}
	_, err := w.w.Write(out.Bytes())
	return err
}

// eventLine formats an event for people: time, type, resource and reason.
func eventLine(p paint, e *adminv1.Event) string {
	color := p.caution
	what := lower(e.GetType())
	switch e.GetType() {
	case adminv1.EventType_EVENT_TYPE_ENDPOINT_HEALTH:
		what = lower(e.GetHealth())
		if e.GetHealth() == adminv1.EndpointHealth_ENDPOINT_HEALTH_UP {
			color = p.good
		} else {
			color = p.bad
		}
	case adminv1.EventType_EVENT_TYPE_HANDSHAKE_FAILURE:
		what, color = "failed", p.bad
	case adminv1.EventType_EVENT_TYPE_ENDPOINT_EJECTED:
		what, color = "ejected", p.bad
	case adminv1.EventType_EVENT_TYPE_ENDPOINT_RETURNED:
		what, color = "returned", p.good
	case adminv1.EventType_EVENT_TYPE_ENDPOINTS_CHANGED:
		what = "changed"
	case adminv1.EventType_EVENT_TYPE_FILE_LOADED:
		what, color = "loaded", p.good
	case adminv1.EventType_EVENT_TYPE_CONNECTIONS_UNVERIFIED:
		what, color = "invalid", p.bad
	case adminv1.EventType_EVENT_TYPE_MISSED:
		what = "missed"
	case adminv1.EventType_EVENT_TYPE_FILE_REFUSED:
		what, color = "refused", p.bad
	}
	line := e.GetEventTime().AsTime().Local().Format("01-02 15:04:05") + "  " + color(pad(what, 8))
	if e.GetName() != "" {
		line += " " + manifest.KindName(e.GetKind()) + " " + printable(e.GetName())
	}
	if e.GetEndpoint() != "" {
		line += " " + printable(e.GetEndpoint())
	}
	if e.GetReason() != adminv1.Reason_REASON_UNSPECIFIED {
		line += " " + color(word(e.GetReason()))
	}
	if e.GetMessage() != "" {
		line += ": " + printable(e.GetMessage())
	}
	if e.GetCount() > 1 {
		line += p.faint(fmt.Sprintf(" (%d times)", e.GetCount()))
	}
	return line
}
