package scale

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/drawbridge-gateway/drawbridge/bench/proc"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// startTimeout bounds a start, and stopTimeout a stop.
const (
	startTimeout = 2 * time.Minute
	stopTimeout  = 30 * time.Second
)

// A gateway is a running process of the binary.
type gateway struct {
	binary, dir string
	ops         string // host:port

	cmd   *exec.Cmd
	ended chan struct{}
	tree  proc.Tree
	conn  *grpc.ClientConn
	admin adminv1.AdminServiceClient
}

// start starts the binary on the store in g.dir, and returns how long it took until
// /readyz answered 200.
func (g *gateway) start(ctx context.Context) (time.Duration, error) {
	out, err := os.Create(g.log())
	if err != nil {
		return 0, err
	}
	defer out.Close()
	g.cmd = exec.Command(g.binary, "serve", "--data-dir", filepath.Join(g.dir, "data"), "--admin", "unix:"+g.socket(), "--ops", g.ops,
		"--log-level", "warn", "--drain-timeout", "1s")
	g.cmd.Stdout, g.cmd.Stderr = out, out
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	began := time.Now()
	if err := g.cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	g.ended, g.tree = ended, proc.Tree{PID: g.cmd.Process.Pid}
	go func() {
		defer close(ended)
		_ = g.cmd.Wait()
	}()
	took, err := g.await(ctx, began)
	if err != nil {
		return 0, err
	}
	g.conn, err = grpc.NewClient("unix:"+g.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	g.admin = adminv1.NewAdminServiceClient(g.conn)
	return took, nil
}

func (g *gateway) await(ctx context.Context, began time.Time) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.ops+"/readyz", nil)
		if err != nil {
			return 0, err
		}
		if answer, err := http.DefaultClient.Do(req); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return time.Since(began), nil
			}
		}
		select {
		case <-g.ended:
			return 0, fmt.Errorf("%s ended: %s", g.binary, g.output())
		case <-ctx.Done():
			return 0, fmt.Errorf("%s is not ready: %w; its output: %s", g.binary, ctx.Err(), g.output())
		case <-again.C:
		}
	}
}

func (g *gateway) socket() string { return filepath.Join(g.dir, "admin.sock") }

func (g *gateway) log() string { return filepath.Join(g.dir, "log") }

// output returns the end of the process's output.
func (g *gateway) output() string {
	text, err := os.ReadFile(g.log())
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-2000):]))
}

// stop ends the process and returns when it is gone.
func (g *gateway) stop() error {
	if g.ended == nil {
		return nil
	}
	var err error
	if g.conn != nil {
		err = g.conn.Close()
	}
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	late := time.NewTimer(stopTimeout)
	defer late.Stop()
	select {
	case <-g.ended:
	case <-late.C:
		err = errors.Join(err, fmt.Errorf("%s did not end in %v", g.binary, stopTimeout), g.cmd.Process.Kill())
		<-g.ended
	}
	g.ended = nil
	return err
}

// freePort returns a port of 127.0.0.1 that was free a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
