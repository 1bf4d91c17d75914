package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/backend"
	"github.com/drawbridge-gateway/drawbridge/bench/keys"
	"github.com/drawbridge-gateway/drawbridge/bench/proxy"
)

// A run holds all measurements, in the form of the JSON output.
type run struct {
	Date    time.Time   `json:"date"`
	Command []string    `json:"command"`
	Machine machine     `json:"machine"`
	Subject string      `json:"subject"`
	Proxies []proxyInfo `json:"proxies"`
	Missing []string    `json:"missing,omitempty"`
	Rows    []result    `json:"rows"`
}

type proxyInfo struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// A result is the result of one row.
type result struct {
	Row string `json:"row"`
	// Samples are the samples of each proxy, in the order of the turns.
	Samples map[string][]sample `json:"samples"`
	// Skipped maps each skipped proxy to the reason.
	Skipped map[string]string `json:"skipped,omitempty"`
	// Faults are failed connections and wrong bytes. A row with a fault has
	// failed.
	Faults []string `json:"faults,omitempty"`
}

func newRun(o *options) *run {
	return &run{
		Date:    time.Now().UTC().Truncate(time.Second),
		Command: o.args,
		Machine: thisMachine(),
		Subject: o.subject[len(o.subject)-1].Name(),
	}
}

// measure runs every row, and stops early only if ctx ends.
func (r *run) measure(ctx context.Context, o *options, kinds []proxy.Kind, progress io.Writer) error {
	k, remove, err := newKeys()
	if err != nil {
		return err
	}
	defer remove()
	for _, row := range o.rows {
		res := result{Row: row.name, Samples: map[string][]sample{}, Skipped: map[string]string{}}
		err := measureRow(ctx, o, row, kinds, k, &res, progress)
		r.Rows = append(r.Rows, res)
		if err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
	}
	return nil
}

// measureRow measures the proxies in turns. A proxy that fails is skipped
// afterward. Only a failure of the machine is an error.
func measureRow(ctx context.Context, o *options, row row, kinds []proxy.Kind, k *keys.Keys, res *result, progress io.Writer) error {
	var sites []*site
	defer func() {
		for _, s := range sites {
			s.close()
		}
	}()
	for _, kind := range kinds {
		if reason := cannot(kind, row); reason != "" {
			res.Skipped[kind.Name()] = reason
			continue
		}
		s, err := newSite(ctx, kind, k, row, o)
		if err != nil {
			return err
		}
		sites = append(sites, s)
	}
	for turn := range o.pairs {
		for _, s := range sites {
			name := s.kind.Name()
			if _, out := res.Skipped[name]; out {
				continue
			}
			fmt.Fprintf(progress, "%-15s turn %d of %d: %s\n", row.name, turn+1, o.pairs, name)
			got, err := s.measure(ctx)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				res.Skipped[name] = "failed"
				res.Faults = append(res.Faults, fmt.Sprintf("%s: %v", name, err))
				continue
			}
			res.Samples[name] = append(res.Samples[name], got)
		}
	}
	return nil
}

// cannot returns the reason why a kind is not measured in a row, or "".
func cannot(kind proxy.Kind, row row) string {
	if reason := kind.Unsupported(row.service); reason != "" {
		return reason
	}
	if _, floor := kind.(proxy.Floor); floor && (row.work.idle > 0 || row.unit == perConnection) {
		return "makes and keeps connections like any program"
	}
	if row.service.Postgres {
		if reason := backend.PostgresMissing(); reason != "" {
			return reason
		}
	}
	if row.work.program != nil {
		return row.work.program.Missing()
	}
	return ""
}

// failed returns the faults of all rows.
func (r *run) failed() error {
	var errs []error
	for _, res := range r.Rows {
		for _, f := range res.Faults {
			errs = append(errs, fmt.Errorf("%s FAILED: %s", res.Row, f))
		}
	}
	return errors.Join(errs...)
}
