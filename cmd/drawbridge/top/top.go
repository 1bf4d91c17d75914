// Package top has the command "top": a table of a running gateway's traffic, which
// it refreshes until the user quits.
//
// read reads the counts of the gateway, a meter turns two readings into rates, and a
// screen shows them. Only this package changes the mode of the terminal, and it
// restores the mode however the command ends.
package top

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/client"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
)

const long = `Top shows the traffic of the running gateway: new connections, requests and bytes per
second, open connections, and failures by reason. It refreshes the table until you
press q.

Keys:
  l, u, c    show listeners, endpoints of upstreams, or open connections
  s, r       sort by the next column; reverse the order
  /          show only rows that contain a text; Enter confirms it, Esc clears it
  q, Ctrl-C  quit

If the output is not a terminal, top prints the table once per interval, without keys and
colors. --count limits the number of tables.`

// New returns the command.
func New(e *command.Env) *cobra.Command {
	o := options{}
	var name string
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show rates, open connections and failures, and refresh them",
		Long:  long,
		Example: `  drawbridge top
  drawbridge top --view connections --sort received
  drawbridge top --interval 10s --count 6 > minute.txt`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().DurationVar(&o.interval, "interval", time.Second, "time between tables; at least 100ms")
	cmd.Flags().IntVar(&o.count, "count", 0, "exit after this number of tables; 0: never")
	cmd.Flags().StringVar(&name, "view", string(listeners), "which table to show first: listeners, upstreams or connections")
	cmd.Flags().StringVar(&o.sort, "sort", "", "the `column` to sort by, such as OPEN; default: the first")
	cmd.Flags().StringVar(&o.filter, "filter", "", "show only rows that contain this `text`")
	conn := client.Flags(e, cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.view = view(name)
		columns, known := headers[o.view]
		switch {
		case !known:
			return exit.UsageError("--view: must be listeners, upstreams or connections")
		case o.interval < 100*time.Millisecond:
			return exit.UsageError("--interval: must be at least 100ms")
		case o.count < 0:
			return exit.UsageError("--count: must not be negative")
		case o.sort != "" && !slices.Contains(columns, strings.ToUpper(o.sort)):
			return exit.UsageError("--sort: must be one of " + strings.Join(columns, ", "))
		}
		cl, err := conn.Dial()
		if err != nil {
			return err
		}
		defer cl.Close()
		// The command must restore the terminal on these signals too. The program handles the
		// others.
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP, syscall.SIGQUIT)
		defer stop()
		return run(ctx, e, cl, o)
	}
	return cmd
}

// run shows tables until ctx ends or the user quits.
func run(ctx context.Context, e *command.Env, cl *client.Client, o options) (err error) {
	out, err := openDisplay(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.close()) }() // even after a panic
	s := newScreen(o, e.Paint(e.Out))
	_, s.keys = out.(*terminalDisplay)
	var m meter
	for n := 1; ; n++ {
		reading, err := read(ctx, cl, s.view)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return cl.Failure(err, nil)
		}
		m.add(reading)
		if err := out.show(s.lines(&m)); err != nil {
			return err
		}
		if o.count > 0 && n >= o.count {
			return nil
		}
		next := reading.at.Add(o.interval)
		for {
			key, pressed := out.key(ctx, next)
			if ctx.Err() != nil || key == quit {
				return nil
			}
			if !pressed {
				break // the next table is due
			}
			if s.press(key) {
				break // the new view needs different counts
			}
			if err := out.show(s.lines(&m)); err != nil {
				return err
			}
		}
	}
}

// options are the flags of the command.
type options struct {
	interval time.Duration
	count    int
	view     view
	sort     string // a column, in upper or lower case; "": the first
	filter   string
}

// fileOf returns the stream as a file, or nil.
func fileOf(stream any) *os.File {
	f, _ := stream.(*os.File)
	return f
}
