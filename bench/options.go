package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/proxy"
)

// options are the settings of a run.
type options struct {
	rows    []row
	subject []proxy.Kind // drawbridge binaries; the last is compared with the others
	peers   []proxy.Kind
	pairs   int
	warmUp  time.Duration // the duration of a load before the measurement
	length  time.Duration // the duration of one measurement
	silence time.Duration // the silence before idle connections are measured
	json    string
	// profiles is the directory for CPU profiles of Drawbridge, or empty.
	profiles string
	args     []string
}

func parseOptions(args []string) (*options, error) {
	o := &options{args: args, warmUp: 400 * time.Millisecond}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	rowList := flags.String("rows", "", "`rows` to run, separated by commas; a trailing * matches any suffix (default all: "+strings.Join(rowNames(), ",")+")")
	peerList := flags.String("peers", "nginx,haproxy,stunnel,iocopy,floor", "`peers` to compare with, separated by commas")
	subjects := flags.String("drawbridge", "../bin/drawbridge", "`binary` of Drawbridge, or several as name=path,name=path: the last is compared with the others and the peers")
	flags.IntVar(&o.pairs, "pairs", 5, "how many `times` each proxy is measured")
	seconds := flags.Float64("seconds", 3, "duration of one measurement in `seconds`")
	silence := flags.Float64("silence", 5, "how many `seconds` idle connections stay idle")
	flags.StringVar(&o.json, "json", "", "`file` to write every measurement to")
	flags.StringVar(&o.profiles, "profiles", "", "`directory` for a CPU profile of Drawbridge from every measurement of a load")
	quick := flags.Bool("quick", false, "the short form, under two minutes: fewer rows and peers, two pairs of half a second; other options still apply")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if *quick {
		o.warmUp = 200 * time.Millisecond
		given := map[string]bool{}
		flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range quickly() {
			if given[name] {
				continue
			}
			if err := flags.Set(name, value); err != nil {
				return nil, err
			}
		}
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: options begin with -", flags.Arg(0))
	}
	if o.pairs < 1 || *seconds <= 0 || *silence < 0 {
		return nil, fmt.Errorf("-pairs and -seconds must be more than 0, and -silence not less")
	}
	o.length = time.Duration(*seconds * float64(time.Second))
	o.silence = time.Duration(*silence * float64(time.Second))
	var err error
	if o.rows, err = selectRows(*rowList); err != nil {
		return nil, err
	}
	if o.peers, err = selectPeers(*peerList); err != nil {
		return nil, err
	}
	o.subject, err = parseSubjects(*subjects, o.profiles != "")
	return o, err
}

// quickly returns the settings of the short form.
func quickly() map[string]string {
	var names []string
	for _, r := range rows {
		if r.quick {
			names = append(names, r.name)
		}
	}
	return map[string]string{
		"rows": strings.Join(names, ","), "peers": "nginx,haproxy,iocopy,floor",
		"pairs": "2", "seconds": "0.5", "silence": "1",
	}
}

// allPeers returns all peers.
func allPeers() ([]proxy.Kind, error) {
	self, err := os.Executable()
	return []proxy.Kind{proxy.Nginx{}, proxy.HAProxy{}, proxy.Stunnel{}, proxy.IOCopy{Program: self}, proxy.Floor{Program: self}}, err
}

func selectPeers(list string) ([]proxy.Kind, error) {
	all, err := allPeers()
	if err != nil || list == "" {
		return nil, err
	}
	var names []string
	for _, k := range all {
		names = append(names, k.Name())
	}
	var out []proxy.Kind
	for name := range strings.SplitSeq(list, ",") {
		i := slices.Index(names, name)
		if i < 0 {
			return nil, unknown("peer", name, names)
		}
		out = append(out, all[i])
	}
	return out, nil
}

// parseSubjects parses one path, or name=path,name=path.
func parseSubjects(list string, profiled bool) ([]proxy.Kind, error) {
	var out []proxy.Kind
	for item := range strings.SplitSeq(list, ",") {
		name, path, named := strings.Cut(item, "=")
		if !named {
			name, path = "drawbridge", item
		}
		if name == "" || path == "" || slices.ContainsFunc(out, func(k proxy.Kind) bool { return k.Name() == name }) {
			return nil, fmt.Errorf("-drawbridge %q: must be a path, or name=path,name=path with different names", list)
		}
		out = append(out, proxy.Drawbridge{Label: name, Path: path, Profiled: profiled})
	}
	return out, nil
}

func unknown(kind, name string, known []string) error {
	return fmt.Errorf("unknown %s %q; known: %s", kind, name, strings.Join(known, ", "))
}

// run finds the available proxies, measures, and returns all results, even if
// it did not complete.
func (o *options) run(ctx context.Context, progress io.Writer) (*run, error) {
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o755); err != nil {
			return nil, err
		}
	}
	r := newRun(o)
	var kinds []proxy.Kind
	for _, k := range slices.Concat(o.subject, o.peers) {
		version, err := k.Version(ctx)
		if err != nil {
			if slices.Contains(o.subject, k) {
				return nil, fmt.Errorf("%w (make build makes bin/drawbridge; -drawbridge selects another)", err)
			}
			r.Missing = append(r.Missing, fmt.Sprintf("%s: %v", k.Name(), err))
			continue
		}
		r.Proxies = append(r.Proxies, proxyInfo{k.Name(), version})
		kinds = append(kinds, k)
	}
	return r, r.measure(ctx, o, kinds, progress)
}
