package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func newConfirm(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "confirm [REV]",
		Short: "Confirm a change that was made with --confirm-within, so that it stays",
		Long: `Confirm makes the pending revision permanent. If you do not confirm it in
time, the gateway rolls back to the revision before it. During a rollout
(--canaries), confirm lets all gateways run the revision at once.

In scripts, name the revision, so that they never confirm a different one.`,
		Example: "  drawbridge apply -f drawbridge.yaml --confirm-within 2m\n  drawbridge confirm",
		Args:    cobra.MaximumNArgs(1),
	}
	output := format.Flag(cmd)
	conn := client.Flags(c.Env, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		numbers, err := parseRevisions(args)
		if err != nil {
			return err
		}
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		if len(numbers) == 0 {
			status, err := cl.Status.GetStatus(cmd.Context(), &adminv1.GetStatusRequest{PageSize: 1})
			if err != nil {
				return cl.Failure(err, exit.NoField)
			}
			if status.GetPending() == nil {
				return &exit.Error{Code: exit.Conflict, Summary: "no revision is pending: there is nothing to confirm"}
			}
			numbers = []int64{status.GetPending().GetRevision()}
		}
		answer, err := cl.Confirm(cmd.Context(), &adminv1.ConfirmRequest{Revision: numbers[0]})
		if err != nil {
			return cl.Failure(err, exit.NoField)
		}
		if *output != format.Table {
			return format.WriteWords(c.Out, *output, answer)
		}
		_, err = fmt.Fprintf(c.Out, "Revision %d is confirmed.\n", numbers[0])
		return err
	}
	return cmd
}

// confirmWithinFlag adds --confirm-within to a command that writes. The option is nil
// without it.
func confirmWithinFlag(cmd *cobra.Command) func() *durationpb.Duration {
	within := cmd.Flags().Duration("confirm-within", 0, "roll back automatically unless the change is confirmed within this time (1s to 24h); on a terminal, show a countdown that Enter confirms")
	return func() *durationpb.Duration {
		if !cmd.Flags().Changed("confirm-within") {
			return nil
		}
		return durationpb.New(*within)
	}
}

// awaitConfirmation prints how to confirm a revision. On a terminal it counts down until
// the revision is confirmed or the gateway has rolled back.
func (c *cli) awaitConfirmation(ctx context.Context, cl *client.Client, f format.Format, p *adminv1.Pending) error {
	if p.GetExpireTime() == nil || f != format.Table {
		return nil
	}
	at := p.GetExpireTime().AsTime().Local().Format("15:04:05")
	fmt.Fprintf(c.Out, "At %s the gateway rolls back to revision %d, unless you confirm: drawbridge confirm %d\n", at, p.GetRollbackTo(), p.GetRevision())
	if !terminal.IsTerminal(c.In) || !terminal.IsTerminal(c.Out) {
		return nil
	}
	enter := make(chan struct{})
	go func() { // this goroutine ends with the process: a read from a terminal cannot be canceled
		if _, err := bufio.NewReader(c.In).ReadString('\n'); err == nil {
			close(enter)
		}
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	d := countdown{Client: cl, out: c.Out, paint: c.Paint(c.Out), pending: p}
	return d.run(ctx, enter, tick.C)
}

// A countdown shows the time left to confirm a revision, and the failures of
// traffic since.
type countdown struct {
	*client.Client
	out     io.Writer
	paint   terminal.Paint
	pending *adminv1.Pending
	since   *traffic // the failures before the countdown
}

// afterDeadline is how long a countdown waits for the gateway to roll back.
const afterDeadline = 15 * time.Second

func (d *countdown) run(ctx context.Context, enter <-chan struct{}, tick <-chan time.Time) error {
	n := d.pending.GetRevision()
	for {
		if done, err := d.show(ctx); done || err != nil {
			return err
		}
		select {
		case <-enter:
			_, err := d.Confirm(ctx, &adminv1.ConfirmRequest{Revision: n})
			if err == nil {
				_, err = fmt.Fprintf(d.out, "Revision %d is confirmed.\n", n)
				return err
			}
			return d.Failure(err, exit.NoField)
		case <-tick:
		case <-ctx.Done():
			fmt.Fprintln(d.out)
			return &exit.Error{Code: exit.Failure, Summary: fmt.Sprintf("interrupted: revision %d is still pending", n)}
		}
	}
}

// show writes the countdown's line. done reports that the revision is no longer
// pending.
func (d *countdown) show(ctx context.Context) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	n, remaining := d.pending.GetRevision(), time.Until(d.pending.GetExpireTime().AsTime())
	now, live, err := readTraffic(ctx, d.Client)
	switch {
	case err != nil && remaining < -afterDeadline:
		fmt.Fprintln(d.out)
		return true, d.Failure(err, exit.NoField)
	case err != nil: // the change may have disconnected this client: the gateway will roll back automatically
		d.line(remaining, d.paint.Bad("the gateway cannot be reached"))
		return false, nil
	case live.GetPending().GetRevision() == n:
		if d.since == nil {
			d.since = now
		}
		d.line(remaining, now.text(d.since, d.paint))
		return false, nil
	}
	fmt.Fprintln(d.out)
	if r, err := d.GetRevision(ctx, &adminv1.GetRevisionRequest{Revision: n}); err == nil && r.GetConfirmTime() != nil {
		_, err = fmt.Fprintf(d.out, "Revision %d was confirmed by %s.\n", n, terminal.Printable(r.GetConfirmPrincipal()))
		return true, err
	}
	return true, &exit.Error{Code: exit.Conflict, Summary: fmt.Sprintf("revision %d was not confirmed: revision %d is live, with the configuration of revision %d",
		n, live.GetRevision(), d.pending.GetRollbackTo())}
}

// line replaces the current line of the terminal.
func (d *countdown) line(remaining time.Duration, text string) {
	fmt.Fprintf(d.out, "\r\x1b[K%s  %s  %s", d.paint.Strong(max(remaining, 0).Round(time.Second).String()), text, d.paint.Faint("Enter confirms"))
}
