package scale

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/drawbridge-gateway/drawbridge/bench/child"
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
	priority    bool   // run at a real-time priority

	process *child.Process // nil: not running
	tree    proc.Tree
	conn    *grpc.ClientConn
	admin   adminv1.AdminServiceClient
}

// start starts the binary on the store in g.dir, and returns the time until /readyz
// answered 200.
func (g *gateway) start(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	var p *child.Process
	start := func() (err error) {
		p, err = child.Start(g.binary, g.flags(), filepath.Join(g.dir, "log"))
		return err
	}
	var err error
	if g.priority {
		err = atPriority(start)
	} else {
		err = start()
	}
	if err != nil {
		return 0, err
	}
	g.process, g.tree = p, proc.Tree{PID: p.PID()}
	ready, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := p.Await(ready, 5*time.Millisecond, g.ready); err != nil {
		return 0, fmt.Errorf("start %s: %w", g.binary, err)
	}
	took := time.Since(began)
	g.conn, err = grpc.NewClient("unix:"+g.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	g.admin = adminv1.NewAdminServiceClient(g.conn)
	return took, nil
}

// flags returns the command line of the gateway.
func (g *gateway) flags() []string {
	return []string{
		"serve", "--data-dir", filepath.Join(g.dir, "data"), "--admin", "unix:" + g.socket(), "--ops", g.ops,
		"--log-level", "warn", "--drain-timeout", "1s", "--file-root", g.files(),
	}
}

// ready returns nil if /readyz answers 200.
func (g *gateway) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.ops+"/readyz", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

// files returns the directory of the certificates' files.
func (g *gateway) files() string { return filepath.Join(g.dir, "files") }

func (g *gateway) socket() string { return filepath.Join(g.dir, "admin.sock") }

// output returns the end of the output of the process, if it is running.
func (g *gateway) output() string {
	if g.process == nil {
		return ""
	}
	return g.process.Log()
}

// stop ends the process and returns when it is gone.
func (g *gateway) stop() error {
	if g.process == nil {
		return nil
	}
	var err error
	if g.conn != nil {
		err = g.conn.Close()
	}
	err = errors.Join(err, g.process.Stop(stopTimeout))
	g.process, g.conn = nil, nil
	return err
}
