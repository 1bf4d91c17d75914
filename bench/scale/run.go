package scale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/child"
	"github.com/drawbridge-gateway/drawbridge/bench/gateway"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Options are the settings of a run.
type Options struct {
	Binary string        // the path of Drawbridge
	N      int           // resources of each kind
	Writes int           // the number of writes in each row
	Idle   time.Duration // length of the measurement of the idle process
	Watch  time.Duration // length of the measurement while the process watches files, a few minutes; 0: no measurement
	Alone  bool          // whether the gateway runs at a real-time priority
	Report io.Writer     // receives each figure as it is measured

	record func(row string, figure float64) // also receives each figure; may be nil
}

// Run measures, and returns an error if a figure misses its target.
func Run(ctx context.Context, o Options) error {
	dir, err := os.MkdirTemp("", "drawbridge-scale-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary, err := filepath.Abs(o.Binary)
	if err != nil {
		return err
	}
	listeners, err := listenersFor(o.N)
	if err != nil {
		return err
	}
	state, err := newState(o.N, listeners)
	if err != nil {
		return err
	}
	r := &run{Options: o, state: state, gateway: &gateway.Gateway{Binary: binary, Dir: dir, Priority: o.Alone}}
	if err := os.Mkdir(r.gateway.Files(), 0o700); err != nil {
		return err
	}
	for _, port := range []*int{&r.ports.ops, &r.ports.edge, &r.ports.few, &r.ports.others} {
		if *port, err = child.FreePort(); err != nil {
			return err
		}
	}
	r.gateway.Ops = fmt.Sprintf("127.0.0.1:%d", r.ports.ops)
	err = r.measure(ctx)
	return errors.Join(err, r.gateway.Stop(), r.failed())
}

// listenersFor returns how many of n listeners the process's limit of descriptors
// allows. They use at most half of it, so that the gateway has room for clients.
func listenersFor(n int) (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	return min(n, int(limit.Max/2)) - 2, nil // the listeners edge and few are two more
}

// A run is the state of Run.
type run struct {
	Options
	*state
	gateway *gateway.Gateway
	ports   struct{ ops, edge, few, others int }
	missed  []string
	parent  string // the last row at the top level
}

func (r *run) measure(ctx context.Context) error {
	fmt.Fprintf(r.Report, "%d certificates, trust bundles, upstreams and routes, %d listeners; one listener has all certificates and all routes\n\n", r.n, r.listeners+2)
	if _, err := r.gateway.Start(ctx); err != nil {
		return err
	}
	if err := r.fill(ctx); err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	if err := r.gateway.Stop(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{r.starts, r.idle, r.handshakes, r.writes, r.idleAgain, r.changes, r.scrapes, r.watches} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("%w; output of the gateway: %s", err, r.gateway.Output())
		}
	}
	return nil
}

// chunks returns a function that collects resources and applies them in chunks that fit
// in a message, and a function that applies the rest.
func (r *run) chunks(ctx context.Context) (put func(*adminv1.Resource) error, flush func() error) {
	var chunk []*adminv1.Resource
	flush = func() error {
		_, err := r.gateway.Admin.Apply(ctx, &adminv1.ApplyRequest{Resources: chunk})
		chunk = nil
		return err
	}
	put = func(res *adminv1.Resource) error {
		if chunk = append(chunk, res); len(chunk) < 1000 {
			return nil
		}
		return flush()
	}
	return put, flush
}

// fill applies the state.
func (r *run) fill(ctx context.Context) error {
	began := time.Now()
	put, flush := r.chunks(ctx)
	for i := range r.n {
		if err := put(&adminv1.Resource{Kind: &adminv1.Resource_TrustBundle{TrustBundle: r.bundle(i, false)}}); err != nil {
			return err
		}
	}
	for i := range r.n {
		c, err := r.certificate(i)
		if err != nil {
			return err
		}
		if err := put(&adminv1.Resource{Kind: &adminv1.Resource_Certificate{Certificate: c}}); err != nil {
			return err
		}
	}
	for i := range r.n {
		if err := put(&adminv1.Resource{Kind: &adminv1.Resource_Upstream{Upstream: r.upstream(i, 1)}}); err != nil {
			return err
		}
	}
	for _, l := range []*adminv1.Listener{r.front("edge", r.ports.edge, r.n, time.Hour), r.front("few", r.ports.few, few, time.Hour)} {
		if err := put(&adminv1.Resource{Kind: &adminv1.Resource_Listener{Listener: l}}); err != nil {
			return err
		}
	}
	for i := range r.listeners {
		if err := put(&adminv1.Resource{Kind: &adminv1.Resource_Listener{Listener: r.listener(i, r.ports.others, time.Hour)}}); err != nil {
			return err
		}
	}
	for i := range r.n {
		if err := put(&adminv1.Resource{Kind: &adminv1.Resource_Route{Route: r.route(i, "")}}); err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	fmt.Fprintf(r.Report, "%-46s %v\n", "applied in chunks of 1,000 in", time.Since(began).Round(time.Millisecond))
	return nil
}

// check prints a figure beside its target, and records a miss.
func (r *run) check(row, unit string, figure, most float64) {
	verdict := "pass"
	if figure > most {
		verdict = "FAIL"
		r.missed = append(r.missed, fmt.Sprintf("%s: %.2f %s, target %.4g", row, figure, unit, most))
	}
	r.keep(row, unit, figure)
	fmt.Fprintf(r.Report, "%-46s %9.2f %-6s target %6.4g  %s\n", row, figure, unit, most, verdict)
}

// note prints a figure without a target.
func (r *run) note(row, unit string, figure float64) {
	r.keep(row, unit, figure)
	fmt.Fprintf(r.Report, "%-46s %9.2f %s\n", row, figure, unit)
}

// keep records a figure. The name of a row below another one includes that row's name.
func (r *run) keep(row, unit string, figure float64) {
	if !strings.HasPrefix(row, " ") {
		r.parent = row
	} else {
		row = r.parent + ":" + row[1:]
	}
	if r.record != nil {
		r.record(row+", "+unit, figure)
	}
}

func (r *run) failed() error {
	if len(r.missed) == 0 {
		return nil
	}
	return fmt.Errorf("%d figures miss their target: %q", len(r.missed), r.missed)
}
