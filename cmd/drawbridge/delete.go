package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func newDelete(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete KIND NAME...",
		Short: "Delete resources of a kind, all or nothing",
		Long: `Delete removes the named resources of a kind in one revision, or nothing.
A resource that another resource refers to is not deleted. The command first shows which
connections would end.

KIND is one of ` + kindWords() + `.`,
		Example: `  drawbridge delete route v2
  drawbridge delete listeners payments orders --dry-run`,
		Args: cobra.MinimumNArgs(2),
	}
	writeOptions := writeFlags(cmd)
	output := format.Flag(cmd)
	conn := client.Flags(c.Env, cmd.Flags())
	cmd.ValidArgsFunction = conn.CompleteKindAndName()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		kind, err := parseKind(args[0])
		if err != nil {
			return err
		}
		options, err := writeOptions()
		if err != nil {
			return err
		}
		req := &adminv1.ApplyRequest{Options: options}
		for _, name := range args[1:] {
			req.Deletes = append(req.Deletes, &adminv1.ResourceDelete{Kind: kind, Name: name})
		}
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		change, err := c.applyWithImpact(cmd.Context(), cl, *output, req)
		if err != nil {
			return cl.Failure(err, exit.NoField)
		}
		if err := c.showChange(*output, change, options.GetDryRun(), nil); err != nil {
			return err
		}
		return c.awaitWritten(cmd.Context(), cl, *output, options.GetWaitFor(), change)
	}
	return cmd
}

// kindWords lists the kinds in lower case.
func kindWords() string {
	return strings.ToLower(strings.Join(manifest.KindNames(), ", "))
}
