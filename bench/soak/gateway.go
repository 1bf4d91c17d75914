package soak

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/drawbridge-gateway/drawbridge/bench/child"
	"github.com/drawbridge-gateway/drawbridge/bench/proc"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// drain is the --drain-timeout. Sessions of clients are shorter, so no drain ends one.
const drain = 30 * time.Second

// A gateway is a running gateway, whose process is replaced by upgrades.
type gateway struct {
	binary, dir, ops string

	process *child.Process // the first one
	conn    *grpc.ClientConn
	admin   adminv1.AdminServiceClient
	status  adminv1.StatusServiceClient
}

// start starts the gateway, and waits until it is ready.
func (g *gateway) start(ctx context.Context) error {
	var err error
	if g.ops, err = child.FreeAddress(); err != nil {
		return err
	}
	g.process, err = child.Start(g.binary, []string{
		"serve", "--data-dir", filepath.Join(g.dir, "data"), "--pid-file", g.pidFile(), "--ops", g.ops, "--log-level", "warn", "--drain-timeout", drain.String(),
	}, filepath.Join(g.dir, "log"))
	if err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := g.process.Await(ready, 10*time.Millisecond, func(context.Context) error { _, err := g.metrics(ctx); return err }); err != nil {
		return err
	}
	g.conn, err = grpc.NewClient("unix:"+filepath.Join(g.dir, "data", "admin.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	g.admin, g.status = adminv1.NewAdminServiceClient(g.conn), adminv1.NewStatusServiceClient(g.conn)
	return nil
}

func (g *gateway) pidFile() string { return filepath.Join(g.dir, "pid") }

// pid returns the ID of the process that serves now.
func (g *gateway) pid() (int, error) {
	text, err := os.ReadFile(g.pidFile())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// upgrade replaces the process, and returns an error that says why if that fails.
func (g *gateway) upgrade(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, g.binary, "upgrade", "--data-dir", filepath.Join(g.dir, "data")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// stop ends the process that serves now, and waits until it has ended. It kills the
// process if that takes too long.
func (g *gateway) stop() error {
	if g.process == nil {
		return nil
	}
	if g.conn != nil {
		g.conn.Close()
	}
	pid, err := g.pid()
	if err != nil {
		return errors.Join(err, g.process.Stop(drain))
	}
	_ = syscall.Kill(pid, syscall.SIGTERM)
	for end := time.Now().Add(drain + 10*time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if pid == g.process.PID() {
			break // Stop waits for it
		}
		if time.Now().After(end) {
			err = fmt.Errorf("process %d did not end", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return errors.Join(err, g.process.Stop(drain+10*time.Second))
}

// A usage lists the resources of the process that serves now.
type usage struct {
	time        time.Time
	memory      float64 // MiB, anonymous and resident
	descriptors float64
	goroutines  float64
}

func (u usage) String() string {
	return fmt.Sprintf("%.1f MiB, %.0f descriptors, %.0f goroutines", u.memory, u.descriptors, u.goroutines)
}

// usage measures the process that serves now.
func (g *gateway) usage(ctx context.Context) (usage, error) {
	u := usage{time: time.Now()}
	pid, err := g.pid()
	if err != nil {
		return u, err
	}
	anon, err := (proc.Tree{PID: pid}).Anon()
	if err != nil {
		return u, err
	}
	u.memory = float64(anon) / (1 << 20)
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return u, err
	}
	u.descriptors = float64(len(open))
	u.goroutines, err = g.metrics(ctx)
	return u, err
}

// metrics returns the number of goroutines.
func (g *gateway) metrics(ctx context.Context) (goroutines float64, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.ops+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	r.Close = true
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			return strconv.ParseFloat(text, 64)
		}
	}
	return 0, errors.New("/metrics has no go_goroutines")
}

// These constants bound by how much two measurements of an idle gateway may
// differ.
const (
	countSlack  = 4   // descriptors, goroutines
	memorySlack = 8   // MiB
	memoryRatio = 1.3 // growth relative to the baseline
)

// leaks says how u exceeds a baseline.
func (u usage) leaks(before usage) []string {
	var out []string
	for _, f := range []struct {
		name        string
		now, before float64
		most        float64
	}{
		{"goroutines", u.goroutines, before.goroutines, before.goroutines + countSlack},
		{"descriptors", u.descriptors, before.descriptors, before.descriptors + countSlack},
		{"MiB of memory", u.memory, before.memory, before.memory*memoryRatio + memorySlack},
	} {
		if f.now > f.most {
			out = append(out, fmt.Sprintf("%.1f %s, and %.1f at the beginning (at most %.1f are allowed)", f.now, f.name, f.before, f.most))
		}
	}
	return out
}

// settleTimeout bounds how long an idle gateway may take to free its resources: idle
// connections to upstreams, draining processes, unused memory.
const settleTimeout = 2 * time.Minute

// settled waits until the idle gateway uses no more than a baseline or, without a
// baseline, until its usage no longer falls. It returns the last usage.
func (g *gateway) settled(ctx context.Context, before *usage) (usage, error) {
	end := time.Now().Add(settleTimeout)
	for last := (usage{}); ; {
		u, err := g.usage(ctx)
		if err != nil {
			return u, err
		}
		steady := before == nil && u.goroutines == last.goroutines && u.descriptors == last.descriptors && u.memory > last.memory-1
		if steady || before != nil && len(u.leaks(*before)) == 0 || time.Now().After(end) {
			return u, nil
		}
		last = u
		select {
		case <-ctx.Done():
			return u, ctx.Err()
		case <-time.After(3 * time.Second): // longer than the idle timeout of the pools
		}
	}
}
