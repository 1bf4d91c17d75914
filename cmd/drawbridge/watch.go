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

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
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
	output := format.Flag(cmd)
	conn := client.Flags(c.Env, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		err = watch(cmd.Context(), cl, watchWriter{w: c.Out, paint: c.Paint(c.Out), format: *output})
		switch {
		case cmd.Context().Err() != nil:
			return nil // an interrupt is the normal end
		case errors.Is(err, io.EOF):
			return &exit.Error{Code: exit.Unavailable, Summary: "the gateway ended the stream"}
		}
		return cl.Failure(err, nil)
	}
	return cmd
}

// watch writes changes and events until one of the streams ends, and returns the error
// that ended it.
func watch(ctx context.Context, cl *client.Client, w watchWriter) error {
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()

	// Open the event stream first: once its header has arrived, it delivers every
	// event after the current revision.
	events, err := cl.Status.WatchEvents(ctx, &adminv1.WatchEventsRequest{})
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
	first, err := client.RecvWhole(updates.Recv)
	if err != nil {
		return err
	}
	if err := w.present(first); err != nil {
		return err
	}

	lines, ended := make(chan func() error), make(chan error, 2)
	reading.Go(func() {
		ended <- relay(ctx, func() (*adminv1.WatchConfigResponse, error) { return client.RecvWhole(updates.Recv) }, lines, w.update)
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

// A watchWriter writes changes and events as they arrive, one per line.
type watchWriter struct {
	w      io.Writer
	paint  terminal.Paint
	format format.Format
}

// present writes the revision that is live when the watch begins.
func (w watchWriter) present(u *adminv1.WatchConfigResponse) error {
	if w.format != format.Table {
		return w.update(u)
	}
	_, err := fmt.Fprintf(w.w, "revision %-6d %s\n", u.GetRevision(), terminal.Count(len(u.GetResources()), "resource"))
	return err
}

// update writes a change of the configuration.
func (w watchWriter) update(u *adminv1.WatchConfigResponse) error {
	if w.format != format.Table {
		text, err := protojson.Marshal(u)
		if err != nil {
			return err
		}
		return w.document(text)
	}
	comment := ""
	if u.GetComment() != "" {
		comment = "   " + w.paint.Faint("# "+terminal.Printable(u.GetComment()))
	}
	var lines bytes.Buffer
	for _, ch := range u.GetChanges() {
		fmt.Fprintf(&lines, "revision %-6d %-8s %s %s%s\n", u.GetRevision(), format.Lower(ch.GetAction()), manifest.KindName(ch.GetKind()), terminal.Printable(ch.GetName()), comment)
	}
	_, err := w.w.Write(lines.Bytes())
	return err
}

// event writes an event, unless update already writes the same change.
func (w watchWriter) event(e *adminv1.Event) error {
	if e.GetType() == adminv1.EventType_EVENT_TYPE_APPLIED {
		return nil
	}
	if w.format != format.Table {
		text, err := format.WordsJSON(e)
		if err != nil {
			return err
		}
		return w.document(fmt.Appendf(nil, `{"event":%s}`, text))
	}
	_, err := io.WriteString(w.w, view.EventLine(w.paint, e)+"\n")
	return err
}

// document writes JSON as a line, or as a document of YAML.
func (w watchWriter) document(text []byte) error {
	var out bytes.Buffer
	if w.format == format.YAML {
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
