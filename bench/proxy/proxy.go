// Package proxy starts the programs that are compared, each configured for the
// same service as a careful operator would: verification on, keep-alive pools
// on, access logs off.
package proxy

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/drawbridge-gateway/drawbridge/bench/keys"
	"github.com/drawbridge-gateway/drawbridge/bench/proc"
)

// A Service is what a proxy is to do: take plaintext or TLS, and carry it over
// mutual TLS to the backend.
type Service struct {
	// HTTP makes it an HTTP proxy. Without it bytes are carried as they are.
	HTTP bool
	// ListenTLS makes it take TLS, not plaintext.
	ListenTLS bool
	// ClientHTTP2 makes it offer HTTP/2 on its TLS listener, UpstreamHTTP2
	// speak HTTP/2 to the backend where the proxy is told which.
	ClientHTTP2, UpstreamHTTP2 bool
	// GRPC makes it one for gRPC, with HTTP/2 on both sides.
	GRPC bool
	// WebSocket makes it pass upgrades on, where the proxy must be told.
	WebSocket bool
	// NoResumption makes every handshake with the backend a full one.
	NoResumption bool
	// Warm is how many connections are kept ready for further clients, where
	// the proxy knows such a thing. 0: none.
	Warm int
	// Admin makes it one whose configuration is changed over Drawbridge's
	// admin service while it runs: only Drawbridge is that.
	Admin bool
}

// noAdmin is why a peer cannot be such a service.
const noAdmin = "has no such admin service"

// A Kind is a program that may be compared.
type Kind interface {
	// Name is how it is called in options and reports.
	Name() string
	// Version returns what it says of itself, or why it cannot be run here.
	Version(ctx context.Context) (string, error)
	// Cannot says why it cannot be given the service, "" if it can.
	Cannot(s Service) string
	// command writes into w.dir what the program needs, and returns how to
	// start it.
	command(w work) (command, error)
}

// work is all that a configuration is made from.
type work struct {
	dir             string // of its own
	listen, backend string // addresses
	keys            *keys.Keys
	service         Service
}

// file writes a file of the proxy's own and returns its path.
func (w work) file(name, text string) (string, error) {
	path := filepath.Join(w.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// A command is a program with its arguments.
type command struct {
	path string
	args []string
}

// A Running proxy serves until it is stopped.
type Running struct {
	// Address is where it takes connections.
	Address string
	// Tree is its processes.
	Tree proc.Tree

	process *process
	dir     string
}

// attempts is how often a start is tried: between choosing a free port and the
// proxy's listening on it, somebody else may take it.
const attempts = 3

// Start starts a proxy before backend, and returns when it takes connections.
func Start(ctx context.Context, kind Kind, k *keys.Keys, backend string, s Service) (*Running, error) {
	if why := kind.Cannot(s); why != "" {
		return nil, fmt.Errorf("%s %s", kind.Name(), why)
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
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	cmd, err := kind.command(work{dir: dir, listen: address, backend: backend, keys: k, service: s})
	if err != nil {
		return nil, err
	}
	p, err := run(cmd, filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	if err := p.waitReady(ctx, address); err != nil {
		p.stop()
		return nil, err
	}
	return &Running{Address: address, Tree: proc.Tree{PID: p.pid()}, process: p, dir: dir}, nil
}

// Stop ends the proxy and removes its files.
func (r *Running) Stop() {
	r.process.stop()
	_ = os.RemoveAll(r.dir)
}

// AdminSocket is where Drawbridge's admin service is.
func (r *Running) AdminSocket() string { return filepath.Join(r.dir, "data", "admin.sock") }

// Log returns what the proxy wrote.
func (r *Running) Log() string { return r.process.log() }

// freeAddress returns an address of loopback that nobody listens on now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
