package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// A Program is an external load generator. It confirms our own results, but
// does not check the returned bytes.
type Program struct {
	name string
	args func(target Target, d time.Duration) []string
	read func(out string) (Outcome, error)
}

// An Outcome is the result that a program reports.
type Outcome struct {
	Units    int64
	P50, P99 time.Duration // 0 if not reported
}

// Missing returns why the program cannot run here, or "" if it can.
func (p *Program) Missing() string {
	if _, err := exec.LookPath(p.name); err != nil {
		return p.name + " is not installed"
	}
	return ""
}

// Run runs the program for about d.
func (p *Program) Run(ctx context.Context, target Target, d time.Duration) (Outcome, error) {
	out, err := exec.CommandContext(ctx, p.name, p.args(target, d)...).CombinedOutput()
	if err != nil {
		return Outcome{}, fmt.Errorf("%s: %w: %s", p.name, err, out)
	}
	got, err := p.read(string(out))
	if err != nil {
		return Outcome{}, fmt.Errorf("%s: %w: %s", p.name, err, out)
	}
	return got, nil
}

// url returns the URL of 1 KiB.
func (t Target) url() string {
	scheme := "http"
	if t.TLS != nil {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s/bytes/1024/1", scheme, t.Address)
}

// seconds returns d in whole seconds, at least one, because the programs accept
// no less.
func seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int((d + time.Second/2).Seconds())))
}

// Wrk returns wrk with the given number of keep-alive connections.
func Wrk(conns int) *Program {
	return &Program{
		name: "wrk",
		args: func(target Target, d time.Duration) []string {
			return []string{"-t1", "-c" + strconv.Itoa(conns), "-d" + seconds(d) + "s", "--latency", target.url()}
		},
		read: readWrk,
	}
}

// H2load returns h2load with the given connections and concurrent requests.
func H2load(conns, streams int) *Program {
	return &Program{
		name: "h2load",
		args: func(target Target, d time.Duration) []string {
			return []string{"-t1", "-c" + strconv.Itoa(conns), "-m" + strconv.Itoa(streams), "-D" + seconds(d), target.url()}
		},
		read: readH2load,
	}
}

// Pgbench returns pgbench with the given number of connections, each running its
// standard transaction of seven statements: three updates, a query and an insert, in a
// transaction block.
func Pgbench(conns int, user string) *Program {
	return &Program{
		name: "pgbench",
		args: func(target Target, d time.Duration) []string {
			host, port, _ := net.SplitHostPort(target.Address)
			return []string{
				"-n", "-c" + strconv.Itoa(conns), "-T" + seconds(d),
				fmt.Sprintf("host=%s port=%s user=%s dbname=postgres sslmode=disable gssencmode=disable", host, port, user),
			}
		},
		read: readPgbench,
	}
}

var (
	wrkRequests = regexp.MustCompile(`(?m)^\s*(\d+) requests in `)
	wrkP50      = regexp.MustCompile(`(?m)^\s*50%\s+(\S+)$`)
	wrkP99      = regexp.MustCompile(`(?m)^\s*99%\s+(\S+)$`)
	wrkFaults   = regexp.MustCompile(`(?m)^\s*(Socket errors|Non-2xx).*$`)
	h2loadDone  = regexp.MustCompile(`(?m)^requests: .*, (\d+) succeeded, (\d+) failed`)
	pgbenchDone = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)$`)
	pgbenchGood = regexp.MustCompile(`(?m)^number of failed transactions: 0 `)
	h2loadCodes = regexp.MustCompile(`(?m)^status codes: (\d+) 2xx, `)
)

func readWrk(out string) (got Outcome, err error) {
	if fault := wrkFaults.FindString(out); fault != "" {
		return got, errors.New("some requests failed")
	}
	n := wrkRequests.FindStringSubmatch(out)
	p50, p99 := wrkP50.FindStringSubmatch(out), wrkP99.FindStringSubmatch(out)
	if n == nil || p50 == nil || p99 == nil {
		return got, errUnread
	}
	var errs [3]error
	got.Units, errs[0] = strconv.ParseInt(n[1], 10, 64)
	got.P50, errs[1] = time.ParseDuration(p50[1])
	got.P99, errs[2] = time.ParseDuration(p99[1])
	return got, errors.Join(errs[:]...)
}

func readH2load(out string) (got Outcome, err error) {
	done, codes := h2loadDone.FindStringSubmatch(out), h2loadCodes.FindStringSubmatch(out)
	if done == nil || codes == nil {
		return got, errUnread
	}
	if done[2] != "0" || done[1] != codes[1] {
		return got, errors.New("some requests failed")
	}
	got.Units, err = strconv.ParseInt(done[1], 10, 64)
	return got, err
}

func readPgbench(out string) (got Outcome, err error) {
	done := pgbenchDone.FindStringSubmatch(out)
	if done == nil {
		return got, errUnread
	}
	if !pgbenchGood.MatchString(out) {
		return got, errors.New("some transactions failed")
	}
	got.Units, err = strconv.ParseInt(done[1], 10, 64)
	return got, err
}

var errUnread = errors.New("its output is not understood")
