package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A result is the outcome of a command line.
type result struct {
	code     int
	out, err string
}

// A shell runs command lines in its own environment.
type shell struct {
	env map[string]string
	in  string
}

func (s shell) run(ctx context.Context, args ...string) result {
	var out, err bytes.Buffer
	c := &cli{Env: &command.Env{Program: "drawbridge", Version: programVersion(), UID: os.Geteuid(), In: strings.NewReader(s.in), Out: &out, Err: &err, LookupEnv: func(name string) (string, bool) {
		v, ok := s.env[name]
		return v, ok
	}}}
	code := c.run(ctx, args)
	return result{code, out.String(), err.String()}
}

// want fails the test unless r has the exit code and contains every text.
func (r result) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d\n%s%s", r.code, code, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.err, text) {
			t.Errorf("no %q in:\n%s%s", text, r.out, r.err)
		}
	}
}

// fakeAdmin is an admin service with answers that a test cannot get from a real
// gateway.
type fakeAdmin struct {
	adminv1.UnimplementedAdminServiceServer
	apply func(*adminv1.ApplyRequest) (*adminv1.ApplyResponse, error)
	get   func(*adminv1.GetListenerRequest) (*adminv1.Listener, error)
	list  func(*adminv1.ListRoutesRequest) (*adminv1.ListRoutesResponse, error)
	watch func(grpc.ServerStreamingServer[adminv1.WatchConfigResponse]) error

	upstreams []*adminv1.Upstream
	listeners []*adminv1.Listener

	status      fakeStatus
	diagnostics fakeDiagnostics
}

type fakeStatus struct {
	adminv1.UnimplementedStatusServiceServer
	status       *adminv1.GetStatusResponse // nil: an empty status
	upstreams    *adminv1.ListUpstreamStatusesResponse
	certificates *adminv1.ListCertificatesInUseResponse
	events       func(grpc.ServerStreamingServer[adminv1.Event]) error
}

func (f fakeStatus) GetStatus(context.Context, *adminv1.GetStatusRequest) (*adminv1.GetStatusResponse, error) {
	if f.status != nil {
		return f.status, nil
	}
	return &adminv1.GetStatusResponse{Version: "fake"}, nil
}

func (f fakeStatus) ListUpstreams(context.Context, *adminv1.ListUpstreamStatusesRequest) (*adminv1.ListUpstreamStatusesResponse, error) {
	return f.upstreams, nil
}

func (f fakeStatus) ListCertificates(context.Context, *adminv1.ListCertificatesInUseRequest) (*adminv1.ListCertificatesInUseResponse, error) {
	return f.certificates, nil
}

func (f fakeStatus) WatchEvents(_ *adminv1.WatchEventsRequest, s grpc.ServerStreamingServer[adminv1.Event]) error {
	return f.events(s)
}

type fakeDiagnostics struct {
	adminv1.UnimplementedDiagnosticsServiceServer
	probe   func(*adminv1.ProbeUpstreamRequest) (*adminv1.ProbeUpstreamResponse, error)
	explain func(*adminv1.ExplainRouteRequest) (*adminv1.ExplainRouteResponse, error)
	flush   func(*adminv1.FlushSessionsRequest) (*adminv1.FlushSessionsResponse, error)
	drain   func(*adminv1.DrainConnectionsRequest) (*adminv1.DrainConnectionsResponse, error)
}

func (f fakeDiagnostics) ProbeUpstream(_ context.Context, r *adminv1.ProbeUpstreamRequest) (*adminv1.ProbeUpstreamResponse, error) {
	return f.probe(r)
}

func (f fakeDiagnostics) ExplainRoute(_ context.Context, r *adminv1.ExplainRouteRequest) (*adminv1.ExplainRouteResponse, error) {
	return f.explain(r)
}

func (f fakeDiagnostics) FlushSessions(_ context.Context, r *adminv1.FlushSessionsRequest) (*adminv1.FlushSessionsResponse, error) {
	return f.flush(r)
}

func (f fakeDiagnostics) DrainConnections(_ context.Context, r *adminv1.DrainConnectionsRequest) (*adminv1.DrainConnectionsResponse, error) {
	return f.drain(r)
}

func (f fakeAdmin) Apply(_ context.Context, r *adminv1.ApplyRequest) (*adminv1.ApplyResponse, error) {
	return f.apply(r)
}

func (f fakeAdmin) GetListener(_ context.Context, r *adminv1.GetListenerRequest) (*adminv1.Listener, error) {
	return f.get(r)
}

func (f fakeAdmin) ListRoutes(_ context.Context, r *adminv1.ListRoutesRequest) (*adminv1.ListRoutesResponse, error) {
	return f.list(r)
}

func (f fakeAdmin) ListUpstreams(context.Context, *adminv1.ListUpstreamsRequest) (*adminv1.ListUpstreamsResponse, error) {
	return &adminv1.ListUpstreamsResponse{Upstreams: f.upstreams}, nil
}

func (f fakeAdmin) ListListeners(context.Context, *adminv1.ListListenersRequest) (*adminv1.ListListenersResponse, error) {
	return &adminv1.ListListenersResponse{Listeners: f.listeners}, nil
}

func (f fakeAdmin) WatchConfig(_ *adminv1.WatchConfigRequest, s grpc.ServerStreamingServer[adminv1.WatchConfigResponse]) error {
	return f.watch(s)
}

// serveFake serves f on a unix socket until the test ends, and returns a shell
// for it.
func serveFake(t *testing.T, f fakeAdmin, opts ...grpc.ServerOption) shell {
	t.Helper()
	lis, err := net.Listen("unix", filepath.Join(tempDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, f, lis, opts...)
	return shell{env: map[string]string{"DRAWBRIDGE_ADMIN": "unix:" + lis.Addr().String()}}
}

func serveOn(t *testing.T, f fakeAdmin, lis net.Listener, opts ...grpc.ServerOption) {
	t.Helper()
	srv := grpc.NewServer(opts...)
	adminv1.RegisterAdminServiceServer(srv, f)
	adminv1.RegisterStatusServiceServer(srv, f.status)
	adminv1.RegisterDiagnosticsServiceServer(srv, f.diagnostics)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// tempDir is t.TempDir with a path short enough for a unix socket.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// text parses a message from its text format.
func text[M proto.Message](t *testing.T, m M, in string) M {
	t.Helper()
	if err := prototext.Unmarshal([]byte(in), m); err != nil {
		t.Fatal(err)
	}
	return m
}

// example reads a message from the test data of package view.
func example[M proto.Message](t *testing.T, m M, name string) M {
	t.Helper()
	return text(t, m, readFile(t, filepath.Join("view", "testdata", name+".txtpb")))
}
