package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Options are the settings of Run.
type Options struct {
	Binary string        // path of drawbridge
	Length time.Duration // the duration of the load, after a warm-up
	Plot   string        // SVG file for memory, descriptors and goroutines; "": none
	Report io.Writer
}

// every returns the interval of a disturbance: a share of the whole time.
func (o Options) every(share time.Duration, least time.Duration) time.Duration {
	return max(o.Length/share, least)
}

// ErrVerdict reports that the gateway did not free its resources, or that clients
// failed.
var ErrVerdict = errors.New("the soak failed")

// Run runs the soak and writes a report. It returns ErrVerdict if a client failed in a way
// that the design does not permit, or if resources were not returned.
func Run(ctx context.Context, o Options) (err error) {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := newSite(ctx, o.Binary, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	t := newTally()
	samples := newSampler(s.gateway)
	sampling, stopSampling := context.WithCancel(ctx)
	defer stopSampling()
	var background sync.WaitGroup
	background.Go(func() { samples.run(sampling, o.every(240, 250*time.Millisecond)) })
	defer background.Wait()
	defer stopSampling()

	// The baseline is measured on a process that has served load of every kind. An
	// upgrade starts this process, because an upgrade also starts the last one.
	fmt.Fprintln(o.Report, "warming up")
	if err := s.gateway.upgrade(ctx); err != nil {
		return err
	}
	warm := o
	warm.Length = o.every(10, 3*time.Second)
	if err := run(ctx, warm, s, t, false); err != nil {
		return err
	}
	before, err := s.gateway.settled(ctx, nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.Report, "running for %v\n", o.Length)
	samples.mark()
	if err := run(ctx, o, s, t, true); err != nil {
		return err
	}
	after, err := s.gateway.settled(ctx, &before)
	if err != nil {
		return err
	}
	stopSampling()
	background.Wait()
	return report(ctx, o, s, t, samples, before, after)
}

// run puts the site under load and disturbs it. When it returns, no client is left.
func run(ctx context.Context, o Options, s *site, t *tally, upgrades bool) error {
	ctx, cancel := context.WithTimeout(ctx, o.Length)
	defer cancel()
	var all sync.WaitGroup
	clients := s.clients(t)
	defer clients.close()
	for _, c := range clients.all {
		for range c.workers {
			all.Go(func() { c.repeat(ctx, s, t) })
		}
	}
	d := disturber{site: s, tally: t}
	all.Go(func() { d.repeat(ctx, 250*time.Millisecond, d.change) })
	all.Go(func() { d.repeat(ctx, o.every(30, 1500*time.Millisecond), d.rotate) })
	all.Go(func() { d.repeat(ctx, o.every(30, 2*time.Second), d.breakEndpoint) })
	if upgrades {
		// The last process runs for a quarter of the time, so that it can show a leak.
		first, stop := context.WithTimeout(ctx, o.Length*3/4)
		defer stop()
		all.Go(func() { d.repeat(first, o.every(20, 2500*time.Millisecond), d.upgrade) })
	}
	all.Wait()
	return nil
}
