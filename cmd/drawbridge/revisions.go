package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/view"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func newRevisions(c *cli) *cobra.Command {
	var most int
	cmd := &cobra.Command{
		Use:   "revisions [REV]",
		Short: "Show who changed what, when and why; or one revision, field by field",
		Long: `Revisions lists the stored changes of the configuration, latest first. With REV it
shows one of them and each field that it changed. Private keys and passphrases are
shown as fingerprints.

WHO is the caller: "uid:0" over the unix socket, the certificate's subject over TCP,
or the gateway itself: for the file of serve --config, a SIGHUP or a watched file.
serve --revision-history sets how many are stored.`,
		Example: `  drawbridge revisions
  drawbridge revisions 42
  drawbridge revisions -n 0 -o json`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().IntVarP(&most, "lines", "n", 20, "maximum number of revisions to list; 0: all")
	output := format.Flag(cmd)
	conn := client.Flags(c.Env, cmd.Flags())
	cmd.ValidArgsFunction = completeRevisions(conn, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		numbers, err := parseRevisions(args)
		if err != nil {
			return err
		}
		if most < 0 {
			return exit.UsageError("--lines: must not be negative")
		}
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		if len(numbers) == 1 {
			return cl.Failure(c.showRevision(cmd.Context(), cl, *output, numbers[0]), exit.NoField)
		}
		all, err := cl.LatestRevisions(cmd.Context(), most)
		if err != nil {
			return cl.Failure(err, exit.NoField)
		}
		return c.showRevisions(*output, all)
	}
	return cmd
}

// parseRevisions returns the numbers of revisions on the command line.
func parseRevisions(args []string) ([]int64, error) {
	numbers := make([]int64, len(args))
	for i, arg := range args {
		n, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || n < 0 {
			return nil, exit.UsageError(fmt.Sprintf("%q: must be the number of a revision, as \"drawbridge revisions\" lists them", arg))
		}
		numbers[i] = n
	}
	return numbers, nil
}

func (c *cli) showRevisions(f format.Format, all []*adminv1.Revision) error {
	if f != format.Table {
		return format.WriteWords(c.Out, f, &adminv1.ListRevisionsResponse{Revisions: all})
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(c.Err, "No revisions.")
		return err
	}
	t := &terminal.Table{Header: []string{"REVISION", "WHEN", "WHO", "WHAT", "COMMENT"}}
	for _, r := range all {
		t.Add(fmt.Sprint(r.GetRevision()), whenMade(r), who(r), describeChanges(r), r.GetComment())
	}
	return c.WriteTable(t)
}

func whenMade(r *adminv1.Revision) string {
	return r.GetCommitTime().AsTime().Local().Format("2006-01-02 15:04:05")
}

// who returns the caller that made a revision, or the cause if the gateway made it.
func who(r *adminv1.Revision) string {
	if r.GetTransport() == adminv1.Transport_TRANSPORT_INTERNAL && r.GetMethod() != "" {
		return r.GetPrincipal() + " (" + r.GetMethod() + ")"
	}
	return r.GetPrincipal()
}

// describeChanges summarizes a revision: "updated Upstream payments, created Route v2 +3".
func describeChanges(r *adminv1.Revision) string {
	const most = 2
	var parts []string
	for _, ch := range r.GetChanges()[:min(most, len(r.GetChanges()))] {
		parts = append(parts, format.Lower(ch.GetAction())+" "+manifest.KindName(ch.GetKind())+" "+ch.GetName())
	}
	text := strings.Join(parts, ", ")
	if more := int(r.GetChangeCount()) - most; more > 0 {
		text += fmt.Sprintf(" +%d", more)
	}
	return text
}

// showRevision writes one revision and each field that it changed.
func (c *cli) showRevision(ctx context.Context, cl *client.Client, f format.Format, n int64) error {
	r, err := cl.GetRevision(ctx, &adminv1.GetRevisionRequest{Revision: n})
	if err != nil {
		return err
	}
	diff, err := cl.Diff(ctx, n-1, &n)
	if err != nil {
		return err
	}
	r.Changes = diff.GetChanges()
	if f != format.Table {
		return format.WriteWords(c.Out, f, r)
	}
	p := c.Paint(c.Out)
	fmt.Fprintf(c.Out, "%s %d   %s   %s\n", p.Strong("Revision"), n, whenMade(r), terminal.Printable(who(r)))
	if r.GetComment() != "" {
		fmt.Fprintf(c.Out, "%s\n", p.Faint("# "+terminal.Printable(r.GetComment())))
	}
	return view.WriteDiff(c.Out, p, r.GetChanges())
}

// completeRevisions completes up to most arguments with the numbers of
// revisions.
func completeRevisions(o *client.Connector, most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return o.Complete(cmd, func(cl *client.Client) ([]string, error) {
			all, err := cl.LatestRevisions(cmd.Context(), 100)
			var words []string
			for _, r := range all {
				words = append(words, fmt.Sprint(r.GetRevision()))
			}
			return words, err
		})
	}
}
