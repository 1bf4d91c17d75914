package commits

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/stats"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// target limits the time of a commit to the last store, relative to the first.
const target = 1.5

// Options are the settings of a run.
type Options struct {
	Dir       string    // the directory for the stores; "": a temporary directory
	Resources int       // the number of resources in each store
	Commits   int       // the number of measured commits to each store
	Report    io.Writer // receives the figures
}

// A row is a store with its measured commits.
type row struct {
	name    string
	commit  func(*store.Draft) error
	state   *store.State
	seconds []float64
}

// Run measures the stores, and returns an error if the figures miss their target.
func Run(ctx context.Context, o Options) error {
	dir, err := os.MkdirTemp(o.Dir, "drawbridge-commits-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	rows, closeAll, err := open(dir)
	defer closeAll()
	if err != nil {
		return err
	}
	if err := fill(rows, o.Resources); err != nil {
		return err
	}
	for i := range o.Commits {
		for _, n := range rand.Perm(len(rows)) { // in random order, so that no store always follows the same other store
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := rows[n].change(i, i%o.Resources); err != nil {
				return fmt.Errorf("%s: %w", rows[n].name, err)
			}
		}
	}
	return report(o, rows)
}

func open(dir string) (rows []*row, closeAll func(), err error) {
	var opened []io.Closer
	closeAll = func() {
		for _, c := range opened {
			c.Close()
		}
	}
	plain, err := openPlain(filepath.Join(dir, "plain.db"))
	if err != nil {
		return nil, closeAll, err
	}
	opened = append(opened, plain)
	empty, err := store.Restore(0, nil)
	if err != nil {
		return nil, closeAll, err
	}
	rows = append(rows, &row{name: "without history", commit: plain.commit, state: empty})
	key, err := seal.ParseKey([]byte(strings.Repeat("5ea1", 16)))
	if err != nil {
		return nil, closeAll, err
	}
	for _, kind := range []struct {
		name string
		key  *seal.Key
	}{{"history", nil}, {"history, sealed", key}} {
		s, err := bolt.Open(filepath.Join(dir, kind.name), bolt.Options{Key: kind.key})
		if err != nil {
			return nil, closeAll, err
		}
		opened = append(opened, s)
		rows = append(rows, &row{name: kind.name, commit: recorded(s), state: s.State()})
	}
	return rows, closeAll, nil
}

// fill puts the resources into each store.
func fill(rows []*row, n int) error {
	var e store.Edit
	for i := range n {
		e.Puts = append(e.Puts, store.Put{Resource: certificate(i, 0)})
	}
	for _, r := range rows {
		if err := r.apply(e); err != nil {
			return err
		}
		r.seconds = nil
	}
	return nil
}

// change commits a new key for certificate n.
func (r *row) change(round, n int) error {
	return r.apply(store.Edit{Puts: []store.Put{{Resource: certificate(n, round+1)}}})
}

func (r *row) apply(e store.Edit) error {
	var bad invalid.List
	d := r.state.Edit(e, &bad)
	if err := bad.Err(); err != nil {
		return err
	}
	began := time.Now()
	if err := r.commit(d); err != nil {
		return err
	}
	r.seconds = append(r.seconds, time.Since(began).Seconds())
	r.state = d.State()
	return nil
}

// certificate returns a certificate as large as a web server's with its chain.
func certificate(n, version int) *adminv1.Certificate {
	text := func(bytes int) string {
		source := rand.New(rand.NewPCG(uint64(n), uint64(version)))
		b := make([]byte, bytes)
		for i := range b {
			b[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"[source.IntN(32)]
		}
		return string(b)
	}
	return &adminv1.Certificate{Name: fmt.Sprint("c", n), Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{
		CertificateChain: text(3000), PrivateKey: text(1700)}}}
}

func report(o Options, rows []*row) error {
	fmt.Fprintf(o.Report, "%d commits to each store of %d certificates; a commit changes one of 4.7 kB\n\n", o.Commits, o.Resources)
	fmt.Fprintf(o.Report, "%-16s %10s %10s %14s\n", "STORE", "MEDIAN", "P95", "OF THE FIRST")
	base := stats.Median(rows[0].seconds)
	var last float64
	for _, r := range rows {
		median := stats.Median(r.seconds)
		last = median / base
		fmt.Fprintf(o.Report, "%-16s %7.2f ms %7.2f ms %13.2fx\n", r.name, median*1e3, stats.Quantile(r.seconds, 0.95)*1e3, last)
	}
	if last > target {
		return fmt.Errorf("commits: one with history and sealing takes %.2f times one without: more than %.1f", last, target)
	}
	fmt.Fprintf(o.Report, "\nAt most %.1fx: met.\n", target)
	return nil
}
