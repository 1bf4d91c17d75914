package main

import (
	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func newRollback(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollback REV",
		Short: "Make the configuration of an earlier revision live again",
		Long: `Rollback restores every resource of revision REV, private keys included,
and deletes those that did not exist. The result is a new revision. It is checked
like any other change, and applied whole or not at all. Its comment is "back to
revision REV" unless --comment gives another.

Files are not stored: a certificate or trust bundle in files uses their present
content, and a warning says so if it has changed since.`,
		Example: `  drawbridge rollback 41 --dry-run
  drawbridge rollback 41 --comment "payments lost its CA"`,
		Args: cobra.ExactArgs(1),
	}
	writeOptions := writeFlags(cmd)
	output := format.Flag(cmd)
	conn := client.Flags(c.Env, cmd.Flags())
	cmd.ValidArgsFunction = completeRevisions(conn, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		numbers, err := parseRevisions(args)
		if err != nil {
			return err
		}
		options, err := writeOptions()
		if err != nil {
			return err
		}
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		answer, err := cl.Rollback(cmd.Context(), &adminv1.RollbackRequest{
			Revision: &numbers[0],
			Options:  options,
		})
		if err != nil {
			return cl.Failure(err, exit.NoField)
		}
		if err := c.showChange(*output, answer.GetChange(), options.GetDryRun(), exit.NoField); err != nil {
			return err
		}
		return c.awaitWritten(cmd.Context(), cl, *output, options.GetWaitFor(), answer.GetChange())
	}
	return cmd
}
