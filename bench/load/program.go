package load

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// A Program is an external load generator. It confirms our own results, but
// does not check the returned bytes.
type Program struct {
	name string
	args func(url string, d time.Duration) []string
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

// Run runs the program for about d, with GET requests for 1 KiB.
func (p *Program) Run(ctx context.Context, target Target, d time.Duration) (Outcome, error) {
	scheme := "http"
	if target.TLS != nil {
		scheme = "https"
	}
	args := p.args(fmt.Sprintf("%s://%s/bytes/1024/1", scheme, target.Address), d)
	out, err := exec.CommandContext(ctx, p.name, args...).CombinedOutput()
	if err != nil {
		return Outcome{}, fmt.Errorf("%s: %w: %s", p.name, err, out)
	}
	got, err := p.read(string(out))
	if err != nil {
		return Outcome{}, fmt.Errorf("%s: %w: %s", p.name, err, out)
	}
	return got, nil
}

// seconds returns d in whole seconds, at least one: neither program accepts
// less.
func seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int((d + time.Second/2).Seconds())))
}

// Wrk returns wrk with the given number of keep-alive connections.
func Wrk(conns int) *Program {
	return &Program{
		name: "wrk",
		args: func(url string, d time.Duration) []string {
			return []string{"-t1", "-c" + strconv.Itoa(conns), "-d" + seconds(d) + "s", "--latency", url}
		},
		read: readWrk,
	}
}

// H2load returns h2load with the given connections and concurrent requests.
func H2load(conns, streams int) *Program {
	return &Program{
		name: "h2load",
		args: func(url string, d time.Duration) []string {
			return []string{"-t1", "-c" + strconv.Itoa(conns), "-m" + strconv.Itoa(streams), "-D" + seconds(d), url}
		},
		read: readH2load,
	}
}

var (
	wrkRequests = regexp.MustCompile(`(?m)^\s*(\d+) requests in `)
	wrkP50      = regexp.MustCompile(`(?m)^\s*50%\s+(\S+)$`)
	wrkP99      = regexp.MustCompile(`(?m)^\s*99%\s+(\S+)$`)
	wrkFaults   = regexp.MustCompile(`(?m)^\s*(Socket errors|Non-2xx).*$`)
	h2loadDone  = regexp.MustCompile(`(?m)^requests: .*, (\d+) succeeded, (\d+) failed`)
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

var errUnread = errors.New("its output is not understood")
