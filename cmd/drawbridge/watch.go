package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func newWatch(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show the present revision, then each change as it is made",
		Long: `Watch shows the present revision and then, until it is interrupted, each change
of the configuration as it becomes live.

-o json writes one WatchConfigResponse a line, -o yaml one a document; the first
holds every resource, each further one those that were created or updated.`,
		Example: "  drawbridge watch\n  drawbridge watch -o json | jq -c '{revision, changes}'",
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
		stream, err := cl.WatchConfig(cmd.Context(), &adminv1.WatchConfigRequest{})
		for first := true; err == nil; first = false {
			var update *adminv1.WatchConfigResponse
			if update, err = stream.Recv(); err == nil {
				if err := writeUpdate(c.out, *output, update, first); err != nil {
					return err
				}
			}
		}
		if cmd.Context().Err() != nil {
			return nil // interrupted, which is how this ends
		}
		if err == io.EOF {
			return &failure{code: exitUnavailable, summary: "the gateway ended the stream"}
		}
		return cl.failure(err, nil)
	}
	return cmd
}

func writeUpdate(w io.Writer, f format, u *adminv1.WatchConfigResponse, first bool) error {
	switch f {
	case formatJSON:
		text, err := protojson.Marshal(u)
		if err != nil {
			return err
		}
		var line bytes.Buffer
		if err := json.Compact(&line, text); err != nil {
			return err
		}
		line.WriteByte('\n')
		_, err = w.Write(line.Bytes())
		return err
	case formatYAML:
		text, err := manifest.MarshalYAML(u)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "---\n%s", text)
		return err
	}
	// Lines come one at a time, so nothing can be aligned to what is later.
	if first {
		_, err := fmt.Fprintf(w, "revision %-6d %s\n", u.GetRevision(), count(len(u.GetResources()), "resource"))
		return err
	}
	comment := ""
	if u.GetComment() != "" {
		comment = "   # " + printable(u.GetComment())
	}
	var lines bytes.Buffer
	for _, ch := range u.GetChanges() {
		fmt.Fprintf(&lines, "revision %-6d %-8s %s %s%s\n", u.GetRevision(), lower(ch.GetAction()), manifest.KindName(ch.GetKind()), printable(ch.GetName()), comment)
	}
	_, err := w.Write(lines.Bytes())
	return err
}
