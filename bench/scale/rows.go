package scale

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/load"
	"github.com/drawbridge-gateway/drawbridge/bench/stats"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// The targets.
const (
	maxStart    = 2000 // ms from the start of the process to ready
	maxIdle     = 1    // percent of a core
	maxWriteCPU = 15   // ms
	maxWriteP50 = 15   // ms
	maxWriteP99 = 40   // ms
	maxScrape   = 500  // ms

	// maxChoice limits the CPU of a handshake that chooses among all certificates,
	// divided by the CPU of a handshake that chooses among ten. The margin is the noise
	// of the measurement.
	maxChoice = 1.15
)

func (r *run) starts(ctx context.Context) error {
	const starts = 3
	var took, cpu, memory []float64
	for i := range starts {
		d, err := r.gateway.Start(ctx)
		if err != nil {
			return err
		}
		used, err := r.gateway.Tree.CPU()
		if err != nil {
			return err
		}
		anon, err := r.gateway.Tree.Anon()
		if err != nil {
			return err
		}
		took, cpu, memory = append(took, milliseconds(d)), append(cpu, milliseconds(used)), append(memory, float64(anon)/(1<<20))
		if i < starts-1 {
			if err := r.gateway.Stop(); err != nil {
				return err
			}
		}
	}
	r.check("start to ready, median of 3", "ms", stats.Median(took), maxStart)
	r.note("  its CPU", "ms", stats.Median(cpu))
	r.note("  its memory when ready (RssAnon)", "MiB", stats.Median(memory))
	return nil
}

func (r *run) idle(ctx context.Context) error { return r.rest(ctx, "idle", started, r.Idle) }

func (r *run) idleAgain(ctx context.Context) error {
	return r.rest(ctx, "idle after the writes", started, r.Idle)
}

const (
	// started limits how long the work of a start continues after ready.
	started = 3 * time.Second

	// confirmed is the time after which the gateway has read new files a second time.
	confirmed = 65 * time.Second
)

// watches measures the process while it watches a pair of files for each certificate. No
// file changes.
func (r *run) watches(ctx context.Context) error {
	if r.Watch == 0 {
		return nil
	}
	put, flush := r.chunks(ctx)
	for i := range r.n {
		c, err := r.certificate(i)
		if err != nil {
			return err
		}
		dir := filepath.Join(r.gateway.Files(), c.GetName())
		pair := &adminv1.CertificateFiles{CertificatePath: filepath.Join(dir, "tls.crt"), PrivateKeyPath: filepath.Join(dir, "tls.key")}
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		for path, text := range map[string]string{pair.CertificatePath: c.GetPem().GetCertificateChain(), pair.PrivateKeyPath: c.GetPem().GetPrivateKey()} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				return err
			}
		}
		c.Source = &adminv1.Certificate_Files{Files: pair}
		if err := put(&adminv1.Resource{Kind: &adminv1.Resource_Certificate{Certificate: c}}); err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	return r.rest(ctx, fmt.Sprintf("idle, watching %d pairs of files", r.n), confirmed, r.Watch)
}

// rest measures the idle process for d, once it has settled.
func (r *run) rest(ctx context.Context, row string, settled, d time.Duration) error {
	if err := load.Sleep(ctx, settled); err != nil {
		return err
	}
	before, err := r.gateway.Tree.CPU()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := load.Sleep(ctx, d); err != nil {
		return err
	}
	after, err := r.gateway.Tree.CPU()
	if err != nil {
		return err
	}
	anon, err := r.gateway.Tree.Anon()
	if err != nil {
		return err
	}
	r.check(row, "% core", 100*(after-before).Seconds()/time.Since(began).Seconds(), maxIdle)
	r.note("  memory (RssAnon)", "MiB", float64(anon)/(1<<20))
	return nil
}

// scrapes measures reads of /metrics, compressed like Prometheus's.
func (r *run) scrapes(context.Context) error {
	const scrapes = 5
	cpu, err := r.cpuOf(scrapes, func(int) error {
		answer, err := http.Get("http://" + r.gateway.Ops + "/metrics")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		_, err = io.Copy(io.Discard, answer.Body)
		return err
	})
	if err != nil {
		return err
	}
	anon, err := r.gateway.Tree.Anon()
	if err != nil {
		return err
	}
	r.check("one scrape of /metrics", "ms CPU", cpu, maxScrape)
	r.note("  memory afterward (RssAnon)", "MiB", float64(anon)/(1<<20))
	return nil
}

// settle limits how long the work of a write continues after its answer.
const settle = 2 * time.Second

// cpuOf calls do n times and returns the CPU per call in ms, including work that a call
// leaves for later.
func (r *run) cpuOf(n int, do func(i int) error) (float64, error) {
	before, err := r.gateway.Tree.CPU()
	if err != nil {
		return 0, err
	}
	for i := range n {
		if err := do(i); err != nil {
			return 0, err
		}
	}
	time.Sleep(settle)
	after, err := r.gateway.Tree.CPU()
	return milliseconds(after-before) / float64(n), err
}

// handshakes compares handshakes that choose among all certificates with handshakes
// that choose among a few. They take turns.
func (r *run) handshakes(ctx context.Context) error {
	const rounds, each = 4, 500
	var all, some []float64
	shake := func(port, certificates int) func(int) error {
		return func(i int) error {
			d := tls.Dialer{Config: &tls.Config{ServerName: hostOf(i * 7919 % certificates), InsecureSkipVerify: true}}
			c, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				return err
			}
			return c.Close()
		}
	}
	for range rounds {
		a, err := r.cpuOf(each, shake(r.ports.edge, r.n))
		if err != nil {
			return err
		}
		s, err := r.cpuOf(each, shake(r.ports.few, few))
		if err != nil {
			return err
		}
		all, some = append(all, a), append(some, s)
	}
	r.check("handshake, SNI among all ÷ among 10", "", stats.Ratios(all, some).Median, maxChoice)
	r.note("  among all", "ms CPU", stats.Median(all))
	return nil
}

// writes measures writes of one resource of each kind.
func (r *run) writes(ctx context.Context) error {
	admin := r.gateway.Admin
	for _, w := range []struct {
		row string
		put func(i, at int) error
	}{
		{"PutUpstream", func(i, at int) error {
			_, err := admin.PutUpstream(ctx, &adminv1.PutUpstreamRequest{Upstream: r.upstream(at, 2+i)})
			return err
		}},
		{"PutUpstream, dry run", func(i, at int) error {
			_, err := admin.PutUpstream(ctx, &adminv1.PutUpstreamRequest{Upstream: r.upstream(at, 1000+i), Options: &adminv1.WriteOptions{DryRun: true}})
			return err
		}},
		{"PutRoute", func(i, at int) error {
			_, err := admin.PutRoute(ctx, &adminv1.PutRouteRequest{Route: r.route(at, fmt.Sprint(i))})
			return err
		}},
		{"PutTrustBundle", func(i, at int) error {
			_, err := admin.PutTrustBundle(ctx, &adminv1.PutTrustBundleRequest{TrustBundle: r.bundle(at, true)})
			return err
		}},
		{"PutCertificate", func(i, at int) error {
			c, err := r.certificate(at)
			if err != nil {
				return err
			}
			_, err = admin.PutCertificate(ctx, &adminv1.PutCertificateRequest{Certificate: c})
			return err
		}},
		{"PutListener", func(i, at int) error {
			_, err := admin.PutListener(ctx, &adminv1.PutListenerRequest{Listener: r.listener(at%r.listeners, r.ports.others, 2*time.Hour)})
			return err
		}},
		{"PutListener with all routes and certificates", func(i, at int) error {
			_, err := admin.PutListener(ctx, &adminv1.PutListenerRequest{Listener: r.front("edge", r.ports.edge, r.n, time.Hour+time.Duration(i+1)*time.Second)})
			return err
		}},
		{"DeleteRoute and PutRoute, both", func(i, at int) error {
			if _, err := admin.DeleteRoute(ctx, &adminv1.DeleteRouteRequest{Name: name("r", at)}); err != nil {
				return err
			}
			_, err := admin.PutRoute(ctx, &adminv1.PutRouteRequest{Route: r.route(at, "")})
			return err
		}},
	} {
		var took []float64
		cpu, err := r.cpuOf(r.Writes, func(i int) error {
			began := time.Now()
			err := w.put(i, i*r.n/r.Writes)
			took = append(took, milliseconds(time.Since(began)))
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", w.row, err)
		}
		r.check(w.row, "ms CPU", cpu, maxWriteCPU)
		r.check("  p50", "ms", stats.Quantile(took, 0.50), maxWriteP50)
		r.check("  p99", "ms", stats.Quantile(took, 0.99), maxWriteP99)
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }
