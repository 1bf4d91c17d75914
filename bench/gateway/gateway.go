// Package gateway runs a Drawbridge binary and calls its admin service.
//
// A Gateway owns its process. The caller owns the directory of the process's state.
package gateway

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

// A Gateway is a binary with a state, and a process of it while it runs.
type Gateway struct {
	Binary   string
	Dir      string // holds the state, the admin socket and the log
	Ops      string // host:port
	Priority bool   // run at a real-time priority

	Tree  proc.Tree                  // the running process
	Admin adminv1.AdminServiceClient // the admin service of the running process

	process *child.Process // nil: not running
	conn    *grpc.ClientConn
}

// Start starts the binary on the store in g.Dir, and returns the time until /readyz
// answered 200.
func (g *Gateway) Start(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	var p *child.Process
	start := func() (err error) {
		p, err = child.Start(g.Binary, g.flags(), filepath.Join(g.Dir, "log"))
		return err
	}
	var err error
	if g.Priority {
		err = atPriority(start)
	} else {
		err = start()
	}
	if err != nil {
		return 0, err
	}
	g.process, g.Tree = p, proc.Tree{PID: p.PID()}
	ready, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := p.Await(ready, 5*time.Millisecond, g.ready); err != nil {
		return 0, fmt.Errorf("start %s: %w", g.Binary, err)
	}
	took := time.Since(began)
	g.conn, err = grpc.NewClient("unix:"+g.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	g.Admin = adminv1.NewAdminServiceClient(g.conn)
	return took, nil
}

// flags returns the command line of the gateway.
func (g *Gateway) flags() []string {
	return []string{
		"serve", "--data-dir", g.Data(), "--admin", "unix:" + g.socket(), "--ops", g.Ops,
		"--log-level", "warn", "--drain-timeout", "1s", "--file-root", g.Files(),
	}
}

// ready returns nil if /readyz answers 200.
func (g *Gateway) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.Ops+"/readyz", nil)
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

// Files returns the directory of the certificates' files.
func (g *Gateway) Files() string { return filepath.Join(g.Dir, "files") }

// Data returns the directory of the store.
func (g *Gateway) Data() string { return filepath.Join(g.Dir, "data") }

func (g *Gateway) socket() string { return filepath.Join(g.Dir, "admin.sock") }

// Output returns the end of the output of the process, if it is running.
func (g *Gateway) Output() string {
	if g.process == nil {
		return ""
	}
	return g.process.Log()
}

// Stop ends the process and returns when it is gone.
func (g *Gateway) Stop() error {
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
