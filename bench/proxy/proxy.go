// Package proxy starts the compared programs, each configured for the same
// service as a careful operator would: verification on, keep-alive pools on,
// access logs off.
//
// A Running owns its process and its files until Stop.
package proxy

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/child"
	"github.com/drawbridge-gateway/drawbridge/bench/keys"
	"github.com/drawbridge-gateway/drawbridge/bench/proc"
)

// A Service is the task of a proxy: accept plaintext or TLS, and forward it
// over mutual TLS to the backend.
type Service struct {
	// HTTP makes the proxy an HTTP proxy. Otherwise it forwards bytes unchanged.
	HTTP bool
	// ListenTLS makes the proxy accept TLS instead of plaintext.
	ListenTLS bool
	// ClientHTTP2 makes the proxy offer HTTP/2 on its TLS listener, and
	// UpstreamHTTP2 makes it use HTTP/2 to the backend, if it needs settings for
	// that.
	ClientHTTP2, UpstreamHTTP2 bool
	// GRPC makes the proxy a gRPC proxy, with HTTP/2 on both sides.
	GRPC bool
	// WebSocket makes the proxy forward upgrades, if it needs a setting for that.
	WebSocket bool
	// NoResumption makes every handshake with the backend full.
	NoResumption bool
	// Warm is the number of connections to keep ready for new clients, if the
	// proxy supports it.
	Warm int
	// Postgres makes the proxy start TLS with a PostgreSQL server, for plaintext
	// clients.
	Postgres bool
	// Admin allows changes of the configuration over Drawbridge's admin service at
	// run time: only Drawbridge supports it.
	Admin bool
}

// noAdmin explains why a peer does not support Service.Admin.
const noAdmin = "has no such admin service"

// noPostgres explains why a peer does not support Service.Postgres.
const noPostgres = "does not start TLS with a PostgreSQL server"

// A Kind is a program that can be compared.
type Kind interface {
	// Name is its name in options and reports.
	Name() string
	// Version returns its version, or the reason why it cannot run here.
	Version(ctx context.Context) (string, error)
	// Unsupported returns the reason why it does not support the service, or "".
	Unsupported(s Service) string
	// command writes the program's files into w.dir, and returns how to start it.
	command(w work) (command, error)
}

// work is the input of a configuration.
type work struct {
	dir             string // the proxy's own directory
	listen, backend string // the addresses of the proxy and the backend
	keys            *keys.Keys
	service         Service
}

// file writes a file for the proxy and returns its path.
func (w work) file(name, text string) (string, error) {
	path := filepath.Join(w.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// A command is a program and its arguments.
type command struct {
	path string
	args []string
	ops  string // address of its ops server, if any
}

// A Running proxy serves until it is stopped.
type Running struct {
	// Address is the address that it accepts connections on.
	Address string
	// Ops is the address of its ops server, or empty.
	Ops string
	// Tree holds its processes.
	Tree proc.Tree

	process *child.Process
	dir     string
}

// attempts is the number of attempts to start a proxy, because another process
// may take the chosen port first.
const attempts = 3

const (
	// readyTimeout bounds the time until a proxy listens.
	readyTimeout = time.Minute
	// stopTimeout is the time for a proxy to end before it is killed.
	stopTimeout = 5 * time.Second
)

// Start starts a proxy before backend, and returns when it accepts
// connections.
func Start(ctx context.Context, kind Kind, k *keys.Keys, backend string, s Service) (*Running, error) {
	if reason := kind.Unsupported(s); reason != "" {
		return nil, fmt.Errorf("%s %s", kind.Name(), reason)
	}
	var err error
	for range attempts {
		var r *Running
		if r, err = start(ctx, kind, k, backend, s); err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("start %s: %w", kind.Name(), err)
}

func start(ctx context.Context, kind Kind, k *keys.Keys, backend string, s Service) (_ *Running, err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	address, err := child.FreeAddress()
	if err != nil {
		return nil, err
	}
	cmd, err := kind.command(work{dir: dir, listen: address, backend: backend, keys: k, service: s})
	if err != nil {
		return nil, err
	}
	p, err := child.Start(cmd.path, cmd.args, filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	if err := awaitListener(ctx, p, address); err != nil {
		_ = p.Stop(stopTimeout)
		return nil, err
	}
	return &Running{Address: address, Ops: cmd.ops, Tree: proc.Tree{PID: p.PID()}, process: p, dir: dir}, nil
}

// Stop ends the proxy and removes its files.
func (r *Running) Stop() {
	_ = r.process.Stop(stopTimeout) // fails if the proxy had to be killed, which does not matter here
	_ = os.RemoveAll(r.dir)
}

// AdminSocket returns the path of Drawbridge's admin socket.
func (r *Running) AdminSocket() string { return filepath.Join(r.dir, "data", "admin.sock") }

// Log returns the proxy's output.
func (r *Running) Log() string { return r.process.Log() }

// awaitListener returns once the process listens on address.
func awaitListener(ctx context.Context, p *child.Process, address string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return p.Await(ctx, 10*time.Millisecond, func(ctx context.Context) error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return c.Close()
	})
}
