package growth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/backend"
	"github.com/drawbridge-gateway/drawbridge/bench/child"
	"github.com/drawbridge-gateway/drawbridge/bench/gateway"
	"github.com/drawbridge-gateway/drawbridge/bench/keys"
	"github.com/drawbridge-gateway/drawbridge/bench/load"
	"github.com/drawbridge-gateway/drawbridge/bench/stats"
)

// Options are the settings of a measurement.
type Options struct {
	Binary string    // the path of Drawbridge
	Alone  bool      // whether the gateway runs at a real-time priority
	Report io.Writer // receives the tables
	Plots  string    // directory of the plots; "": draw none

	Settle time.Duration // limits the wait until the memory of closed connections is free

	Conns   []int         // numbers of idle connections, ascending
	Sizes   []int         // numbers of routes and of certificates, ascending
	Writes  int           // writes of each size
	Load    time.Duration // length of each load
	Silence time.Duration // time for the gateway to free memory before it is measured

	Changing []int         // numbers of revisions after which Revisions reports, ascending
	Routes   int           // routes during Revisions
	Every    time.Duration // time between two writes of Revisions
}

// MostConns returns how many clients a gateway with the descriptors of this process
// accepts, but at most most. The gateway keeps 1,024 descriptors and those of its own
// servers, and one for the upstream connection of each client.
func MostConns(most int) (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	const kept, own = 1024, 1000
	room := (int(min(limit.Max, 1<<30)) - kept - own) / 2
	return max(1, min(most, room/100*100)), nil
}

// A bench is the part that all measurements share: the keys, the backend, and a gateway
// with an empty store.
type bench struct {
	Options
	dir     string
	keys    *keys.Keys
	backend *backend.Backend
	gateway *gateway.Gateway
	listen  string // address of the gateway's listener
}

// with calls do with a bench whose backend is started by serve.
func with(ctx context.Context, o Options, http bool, do func(*bench) error) (err error) {
	dir, err := os.MkdirTemp("", "drawbridge-growth-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{Options: o, dir: dir}
	binary, err := filepath.Abs(o.Binary)
	if err != nil {
		return err
	}
	if b.keys, err = keys.New(dir); err != nil {
		return err
	}
	serve := backend.Start
	if http {
		serve = backend.StartHTTP
	}
	if b.backend, err = serve(b.keys.BackendTLS()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.backend.Close()) }()
	b.gateway = &gateway.Gateway{Binary: binary, Dir: dir, Priority: o.Alone}
	if b.gateway.Ops, err = child.FreeAddress(); err != nil {
		return err
	}
	if b.listen, err = child.FreeAddress(); err != nil {
		return err
	}
	if err := os.Mkdir(b.gateway.Files(), 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.gateway.Stop()) }()
	if _, err := b.gateway.Start(ctx); err != nil {
		return err
	}
	if err := do(b); err != nil {
		return fmt.Errorf("%w; output of the gateway: %s", err, b.gateway.Output())
	}
	return nil
}

// cpu returns the CPU time that do takes the gateway.
func (b *bench) cpu(do func() error) (time.Duration, error) {
	runtime.GC() // a collection of this program would delay the gateway
	before, err := b.gateway.Tree.Clock()
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := b.gateway.Tree.Clock()
	return after - before, err
}

// memory returns the gateway's anonymous memory in MiB, after it had time to free some.
func (b *bench) memory(ctx context.Context) (float64, error) {
	if err := load.Sleep(ctx, b.Silence); err != nil {
		return 0, err
	}
	return b.memoryNow()
}

func (b *bench) memoryNow() (float64, error) {
	anon, err := b.gateway.Tree.Anon()
	return float64(anon) / (1 << 20), err
}

// A usage is the cost of a unit of load.
type usage struct {
	cpu      float64 // µs
	p50, p99 float64 // ms
}

// drive runs load with the given number of workers for b.Load.
func (b *bench) drive(ctx context.Context, target load.Target, drive load.Func, workers int) (usage, error) {
	loading, cancel := context.WithCancel(ctx)
	defer cancel()
	m := load.NewMeter(workers)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		drive(loading, target, m)
	}()
	finish := func(err error) error {
		cancel()
		<-ended
		return errors.Join(err, m.Err())
	}
	select {
	case <-m.Ready():
	case <-m.Broken():
		return usage{}, finish(nil)
	case <-ctx.Done():
		return usage{}, finish(ctx.Err())
	}
	spent, err := b.cpu(func() error {
		m.Start()
		defer m.Stop()
		for {
			if err := load.Sleep(ctx, b.Load); err != nil || m.Units() > 0 {
				return err
			}
			select {
			case <-m.Broken():
				return m.Err()
			default: // a busy machine: measure for longer
			}
		}
	})
	units := m.Units()
	if err := finish(err); err != nil {
		return usage{}, err
	}
	took := m.Latencies()
	return usage{
		cpu: microseconds(spent) / float64(units),
		p50: milliseconds(time.Duration(stats.Quantile(took, 0.5))),
		p99: milliseconds(time.Duration(stats.Quantile(took, 0.99))),
	}, nil
}

// report writes a table below its title, and draws rows of it in a file of o.Plots.
func (o Options) report(t *Table, file, title string, rows ...string) error {
	fmt.Fprintf(o.Report, "%s\n\n", title)
	if err := t.Write(o.Report); err != nil {
		return err
	}
	fmt.Fprintln(o.Report)
	if o.Plots == "" || len(t.rows) == 0 {
		return nil
	}
	return t.Draw(filepath.Join(o.Plots, file), title, rows...)
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }
func microseconds(d time.Duration) float64 { return d.Seconds() * 1e6 }
