package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const diffLong = `Diff shows the fields that differ: between files and the live configuration (-f), a
revision and the live one (REV), or two revisions (REV REV). "-" is the value
before, "+" the value after. Private keys, passphrases and values over 1 KiB are
shown as fingerprints.

With -f it is a dry run of "apply -f": the gateway checks the files in full and
changes nothing. --prune includes the resources that the files do not name.

The exit code is 0 if nothing differs, 1 if something does, and 2 or more on an
error.`

func newDiff(c *cli) *cobra.Command {
	var (
		files         []string
		prune         bool
		pruneSelector string
	)
	cmd := &cobra.Command{
		Use:   "diff {-f FILE | REV [REV]}",
		Short: "Show which fields differ between files or revisions and the live configuration",
		Long:  diffLong,
		Example: `  drawbridge diff -f drawbridge.yaml --prune
  drawbridge diff 41
  drawbridge diff 40 41 -o json`,
		Args: cobra.MaximumNArgs(2),
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "`FILE` to compare with the live configuration, as in apply; may be repeated")
	cmd.Flags().BoolVar(&prune, "prune", false, "with -f: also show every resource that the files do not name as deleted")
	cmd.Flags().StringVar(&pruneSelector, "prune-selector", "", "with --prune: only resources whose labels match this `selector`, such as team=payments")
	output := format.Flag(cmd)
	conn := client.Flags(c.Env, cmd.Flags())
	cmd.ValidArgsFunction = completeRevisions(conn, 2)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		numbers, err := parseRevisions(args)
		switch {
		case err != nil:
			return err
		case (len(files) > 0) == (len(args) > 0):
			return exit.UsageError("name either files with -f, or one or two revisions")
		case len(files) == 0 && (prune || pruneSelector != ""), pruneSelector != "" && !prune:
			return exit.UsageError("--prune requires -f, and --prune-selector requires --prune")
		}
		var m *manifest.Manifest
		if len(files) > 0 {
			if m, err = manifest.Load(c.In, files...); err != nil {
				return err
			}
		}
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		var diff *adminv1.DiffRevisionsResponse
		name := exit.NoField
		if m != nil {
			name = exit.InManifest(m)
			diff, err = c.diffFiles(cmd.Context(), cl, m, prune, pruneSelector)
		} else {
			var to *int64
			if len(numbers) == 2 {
				to = &numbers[1]
			}
			diff, err = cl.Diff(cmd.Context(), numbers[0], to)
		}
		if err != nil {
			return differError(cl.Failure(err, name))
		}
		if *output != format.Table {
			err = format.WriteWords(c.Out, *output, diff)
		} else {
			err = view.WriteDiff(c.Out, c.Paint(c.Out), diff.GetChanges())
		}
		if err == nil && len(diff.GetChanges()) > 0 {
			return errDiffers
		}
		return differError(err)
	}
	return cmd
}

// errDiffers ends diff with exit code 1 and no message.
var errDiffers = &exit.Error{Code: exit.Failure}

// differError changes exit code 1, which means that there are differences.
func differError(err error) error {
	if err == nil {
		return nil
	}
	f := *exit.AsError(err)
	if f.Code == exit.Failure {
		f.Code = exit.Unavailable
	}
	return &f
}

// diffFiles compares files with the live configuration, with a dry run.
func (c *cli) diffFiles(ctx context.Context, cl *client.Client, m *manifest.Manifest, prune bool, selector string) (*adminv1.DiffRevisionsResponse, error) {
	req := &adminv1.ApplyRequest{Resources: m.Resources(), Options: &adminv1.WriteOptions{DryRun: true}}
	if prune {
		req.Prune = &adminv1.Prune{Kinds: manifest.Kinds(), LabelSelector: selector}
	}
	answer, err := cl.Apply(ctx, req)
	if err != nil {
		return nil, err
	}
	view.WriteWarnings(c.Err, answer.GetChange().GetWarnings(), exit.InManifest(m))
	diff := &adminv1.DiffRevisionsResponse{To: answer.GetChange().GetRevision()}
	for _, ch := range answer.GetChange().GetChanges() {
		if ch.GetAction() != adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED {
			diff.Changes = append(diff.Changes, ch)
		}
	}
	return diff, nil
}
