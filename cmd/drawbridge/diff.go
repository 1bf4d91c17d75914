package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const diffLong = `Diff shows the fields that differ: between files and the live configuration (-f), a
revision and the live one (REV), or two revisions (REV REV). "-" is the value
before, "+" the value after. Private keys, passphrases and values over 1 KiB are
shown as fingerprints.

With -f it is a dry run of "apply -f": the files are checked in full, and nothing is
changed. --prune includes the resources that the files do not name.

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
		Short: "Show which fields differ between files or revisions and what is live",
		Long:  diffLong,
		Example: `  drawbridge diff -f drawbridge.yaml --prune
  drawbridge diff 41
  drawbridge diff 40 41 -o json`,
		Args: cobra.MaximumNArgs(2),
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "`FILE` to compare with the live configuration, as in apply; may be repeated")
	cmd.Flags().BoolVar(&prune, "prune", false, "with -f: also show every resource that the files do not name as deleted")
	cmd.Flags().StringVar(&pruneSelector, "prune-selector", "", "with --prune: only resources whose labels match, such as `team=payments`")
	output := formatFlag(cmd)
	conn := c.connectFlags(cmd.Flags())
	cmd.ValidArgsFunction = c.completeRevisions(conn, 2)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		numbers, err := parseRevisions(args)
		switch {
		case err != nil:
			return err
		case (len(files) > 0) == (len(args) > 0):
			return usageError("name either files with -f, or one or two revisions")
		case len(files) == 0 && (prune || pruneSelector != ""), pruneSelector != "" && !prune:
			return usageError("--prune goes with -f, and --prune-selector with --prune")
		}
		var m *manifest.Manifest
		if len(files) > 0 {
			if m, err = manifest.Load(c.in, files...); err != nil {
				return err
			}
		}
		cl, err := conn.dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		var diff *adminv1.DiffRevisionsResponse
		name := noField
		if m != nil {
			name = inManifest(m)
			diff, err = c.diffFiles(cmd.Context(), cl, m, prune, pruneSelector)
		} else {
			var to *int64
			if len(numbers) == 2 {
				to = &numbers[1]
			}
			diff, err = cl.diffRevisions(cmd.Context(), numbers[0], to)
		}
		if err != nil {
			return differError(cl.failure(err, name))
		}
		if *output != formatTable {
			err = showWords(c.out, *output, diff)
		} else {
			err = writeDiff(c.out, c.paint(c.out), diff.GetChanges())
		}
		if err == nil && len(diff.GetChanges()) > 0 {
			return errDiffers
		}
		return differError(err)
	}
	return cmd
}

// errDiffers ends diff with exit code 1 and no message.
var errDiffers = &failure{code: exitFailure}

// differError keeps exit code 1 for differences.
func differError(err error) error {
	if err == nil {
		return nil
	}
	f := *asFailure(err)
	if f.code == exitFailure {
		f.code = exitUnavailable
	}
	return &f
}

// diffFiles compares files with the live configuration by a dry run.
func (c *cli) diffFiles(ctx context.Context, cl *client, m *manifest.Manifest, prune bool, selector string) (*adminv1.DiffRevisionsResponse, error) {
	req := &adminv1.ApplyRequest{Resources: m.Resources(), Options: &adminv1.WriteOptions{DryRun: true}}
	if prune {
		req.Prune = &adminv1.Prune{Kinds: manifest.Kinds(), LabelSelector: selector}
	}
	answer, err := cl.Apply(ctx, req)
	if err != nil {
		return nil, err
	}
	showWarnings(c.err, answer.GetChange().GetWarnings(), inManifest(m))
	diff := &adminv1.DiffRevisionsResponse{To: answer.GetChange().GetRevision()}
	for _, ch := range answer.GetChange().GetChanges() {
		if ch.GetAction() != adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED {
			diff.Changes = append(diff.Changes, ch)
		}
	}
	return diff, nil
}

// diffRevisions reads all differences between two revisions; nil stands for the live one.
func (cl *client) diffRevisions(ctx context.Context, from int64, to *int64) (*adminv1.DiffRevisionsResponse, error) {
	whole := &adminv1.DiffRevisionsResponse{}
	for token := ""; ; {
		page, err := cl.DiffRevisions(ctx, &adminv1.DiffRevisionsRequest{From: from, To: to, PageToken: token})
		if err != nil {
			return nil, err
		}
		whole.Changes, whole.To = append(whole.Changes, page.GetChanges()...), page.GetTo()
		if token = page.GetNextPageToken(); token == "" {
			return whole, nil
		}
	}
}

// writeDiff writes changes for people, each field with its values before and after.
func writeDiff(w io.Writer, p paint, changes []*adminv1.ResourceChange) error {
	var out bytes.Buffer
	for _, ch := range changes {
		head := strings.ToLower(word(ch.GetAction())) + " " + manifest.KindName(ch.GetKind()) + " " + printable(ch.GetName())
		switch ch.GetAction() {
		case adminv1.ChangeAction_CHANGE_ACTION_CREATED:
			head = p.good(head)
		case adminv1.ChangeAction_CHANGE_ACTION_DELETED:
			head = p.bad(head)
		default:
			head = p.strong(head)
		}
		fmt.Fprintln(&out, head)
		if len(ch.GetFields()) == 0 && ch.GetAction() == adminv1.ChangeAction_CHANGE_ACTION_UPDATED {
			fmt.Fprintln(&out, "  "+p.faint("the settings are the same; its files have other content"))
		}
		for _, f := range ch.GetFields() {
			fmt.Fprintln(&out, "  "+printable(f.GetPath()))
			if f.GetBefore() != "" {
				fmt.Fprintln(&out, p.bad("  - "+printable(f.GetBefore())))
			}
			if f.GetAfter() != "" {
				fmt.Fprintln(&out, p.good("  + "+printable(f.GetAfter())))
			}
		}
		if n := int(ch.GetFieldCount()) - len(ch.GetFields()); n > 0 && len(ch.GetFields()) > 0 {
			fmt.Fprintln(&out, "  "+p.faint(fmt.Sprintf("and %d more fields", n)))
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}
