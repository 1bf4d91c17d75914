package growth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/load"
	"github.com/drawbridge-gateway/drawbridge/bench/stats"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Rows of Routes and Certificates.
const (
	resStart     = "start to ready, ms, median of 3"
	resStartCPU  = "its CPU, ms"
	resMemory    = "memory when ready, MiB"
	resStore     = "store, MiB"
	resWrite     = "CPU of a write, ms"
	resWriteP50  = "its p50, ms"
	resWriteP99  = "its p99, ms"
	resRequest   = "CPU of a request to one of all hosts, µs"
	resHandshake = "CPU of a handshake with one of all names, µs"
	resPages     = "CPU of GetConfig, all pages, ms"
	resPage      = "CPU of a page, ms"
	resAfter     = "memory after all this, MiB"
)

// Routes measures a listener with more and more routes.
func Routes(ctx context.Context, o Options) error {
	table := NewTable("routes", o.Sizes)
	var failed error // shown below the sizes before it
	for _, n := range o.Sizes {
		err := with(ctx, o, true, func(b *bench) error {
			if err := b.fillRoutes(ctx, n); err != nil {
				return err
			}
			if err := b.starts(ctx, n, table); err != nil {
				return err
			}
			hosts := make([]string, n)
			for i := range hosts {
				hosts[i] = hostOf(i)
			}
			request, err := b.drive(ctx, load.Target{Address: b.listen}, load.HTTPHosts(active, 1<<10, load.Requests, hosts), active)
			if err != nil {
				return err
			}
			table.Add(resRequest, n, request.cpu)
			return b.writesAndPages(ctx, n, table, func(i int) error {
				_, err := b.gateway.Admin.PutRoute(ctx, &adminv1.PutRouteRequest{Route: route(rand.IntN(n), fmt.Sprint(i))})
				return err
			})
		})
		if err != nil {
			failed = fmt.Errorf("%d routes: %w", n, err)
			break
		}
	}
	return errors.Join(failed, o.report(table, "growth-routes.svg", "Routes of one listener", resStart, resMemory, resWrite, resRequest, resPage))
}

func (b *bench) fillRoutes(ctx context.Context, n int) error {
	put, flush := b.chunks(ctx)
	if err := b.base(put); err != nil {
		return err
	}
	if err := put(b.listener(adminv1.Protocol_PROTOCOL_HTTP, false, nil)); err != nil {
		return err
	}
	for i := range n {
		if err := put(&adminv1.Resource{Kind: &adminv1.Resource_Route{Route: route(i, "")}}); err != nil {
			return err
		}
	}
	return flush()
}

// Certificates measures a listener that presents more and more certificates.
func Certificates(ctx context.Context, o Options) error {
	ca, err := pki.NewRoot(pki.CAOptions{CommonName: "growth"})
	if err != nil {
		return err
	}
	issue := func(i int) (*adminv1.Resource, error) {
		issued, err := ca.Issue(pki.LeafOptions{DNSNames: []string{hostOf(i)}})
		if err != nil {
			return nil, err
		}
		return certificate(fmt.Sprintf("c%06d", i), issued.ChainPEM, issued.KeyPEM), nil
	}
	table := NewTable("certificates", o.Sizes)
	var failed error // shown below the sizes before it
	for _, n := range o.Sizes {
		presented := max(1, n-baseCertificates)
		err := with(ctx, o, true, func(b *bench) error {
			if err := b.fillCertificates(ctx, presented, issue); err != nil {
				return err
			}
			if err := b.starts(ctx, n, table); err != nil {
				return err
			}
			handshake, err := b.handshakes(ctx, presented)
			if err != nil {
				return err
			}
			table.Add(resHandshake, n, handshake)
			return b.writesAndPages(ctx, n, table, func(int) error {
				r, err := issue(rand.IntN(presented))
				if err != nil {
					return err
				}
				_, err = b.gateway.Admin.PutCertificate(ctx, &adminv1.PutCertificateRequest{Certificate: r.GetCertificate()})
				return err
			})
		})
		if err != nil {
			failed = fmt.Errorf("%d certificates: %w", n, err)
			break
		}
	}
	return errors.Join(failed, o.report(table, "growth-certificates.svg", "Certificates of one listener", resStart, resMemory, resWrite, resHandshake, resPage))
}

func (b *bench) fillCertificates(ctx context.Context, n int, issue func(i int) (*adminv1.Resource, error)) error {
	put, flush := b.chunks(ctx)
	if err := b.base(put); err != nil {
		return err
	}
	var names []string
	for i := range n {
		r, err := issue(i)
		if err != nil {
			return err
		}
		names = append(names, r.GetCertificate().GetName())
		if err := put(r); err != nil {
			return err
		}
	}
	if err := put(b.listener(adminv1.Protocol_PROTOCOL_HTTP, true, names)); err != nil {
		return err
	}
	return flush()
}

// starts measures starts of the gateway with the state that it has now.
func (b *bench) starts(ctx context.Context, n int, table *Table) error {
	const starts = 3
	var took, spent, memory []float64
	for range starts {
		if err := b.gateway.Stop(); err != nil {
			return err
		}
		d, err := b.gateway.Start(ctx)
		if err != nil {
			return err
		}
		cpu, err := b.gateway.Tree.Clock()
		if err != nil {
			return err
		}
		now, err := b.memoryNow()
		if err != nil {
			return err
		}
		took, spent, memory = append(took, milliseconds(d)), append(spent, milliseconds(cpu)), append(memory, now)
	}
	store, err := sizeOf(b.gateway.Data())
	if err != nil {
		return err
	}
	table.Add(resStart, n, stats.Median(took))
	table.Add(resStartCPU, n, stats.Median(spent))
	table.Add(resMemory, n, stats.Median(memory))
	table.Add(resStore, n, store)
	return load.Sleep(ctx, b.Silence) // the work of a start continues after ready
}

// handshakes returns the CPU of a full handshake, in µs.
func (b *bench) handshakes(ctx context.Context, n int) (float64, error) {
	done := 0
	spent, err := b.cpu(func() error {
		for end := time.Now().Add(b.Load); done == 0 || time.Now().Before(end); done++ {
			d := tls.Dialer{Config: &tls.Config{ServerName: hostOf(rand.IntN(n)), InsecureSkipVerify: true}}
			c, err := d.DialContext(ctx, "tcp", b.listen)
			if err != nil {
				return err
			}
			_ = c.Close()
		}
		return nil
	})
	return microseconds(spent) / float64(max(1, done)), err
}

// writesAndPages measures writes of one resource, and GetConfig.
func (b *bench) writesAndPages(ctx context.Context, n int, table *Table, write func(i int) error) error {
	var took []float64
	spent, err := b.cpu(func() error {
		for i := range b.Writes {
			began := time.Now()
			if err := write(i); err != nil {
				return err
			}
			took = append(took, milliseconds(time.Since(began)))
		}
		return load.Sleep(ctx, b.Silence) // the work of a write continues after its answer
	})
	if err != nil {
		return err
	}
	table.Add(resWrite, n, milliseconds(spent)/float64(b.Writes))
	table.Add(resWriteP50, n, stats.Quantile(took, 0.5))
	table.Add(resWriteP99, n, stats.Quantile(took, 0.99))

	pages, resources := 0, 0
	spent, err = b.cpu(func() error {
		for token := ""; pages == 0 || token != ""; pages++ {
			page, err := b.gateway.Admin.GetConfig(ctx, &adminv1.GetConfigRequest{PageToken: token})
			if err != nil {
				return err
			}
			token, resources = page.GetNextPageToken(), resources+len(page.GetResources())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if resources < n {
		return fmt.Errorf("GetConfig returned %d resources of %d", resources, n)
	}
	table.Add(resPages, n, milliseconds(spent))
	table.Add(resPage, n, milliseconds(spent)/float64(pages))
	memory, err := b.memory(ctx)
	table.Add(resAfter, n, memory)
	return err
}

// sizeOf returns the size of all files below a directory, in MiB.
func sizeOf(dir string) (float64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return float64(sum) / (1 << 20), err
}
