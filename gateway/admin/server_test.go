package admin

//lint:file-ignore SA1019 Reflection v1alpha is deprecated, and served for the clients that know no other.

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestHealthFollowsSetServingAndEndsWithShutdown(t *testing.T) {
	r := start(t)
	health := grpc_health_v1.NewHealthClient(r.conn)
	check := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, service := range []string{"", "drawbridge.admin.v1.AdminService", "drawbridge.admin.v1.StatusService"} {
			res, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
			if err != nil || res.GetStatus() != want {
				t.Errorf("health of %q = %v, %v; want %v", service, res, err, want)
			}
		}
	}
	check(grpc_health_v1.HealthCheckResponse_SERVING)
	r.SetServing(false)
	check(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	r.SetServing(true)
	check(grpc_health_v1.HealthCheckResponse_SERVING)
	_, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "x"})
	wantCode(t, err, codes.NotFound)

	if err := r.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.SetServing(true)
	res, err := r.health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || res.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health after Shutdown = %v, %v", res, err)
	}
}

func TestReflectionListsTheServicesInBothVersions(t *testing.T) {
	r := start(t)
	want := []string{
		"drawbridge.admin.v1.AdminService", "drawbridge.admin.v1.DiagnosticsService", "drawbridge.admin.v1.FleetService", "drawbridge.admin.v1.StatusService", "grpc.health.v1.Health",
		"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
	}
	v1, err := reflectionv1.NewServerReflectionClient(r.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := v1.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	res, err := v1.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range res.GetListServicesResponse().GetService() {
		got = append(got, s.GetName())
	}
	if !slices.Equal(got, want) {
		t.Errorf("v1 lists %v", got)
	}
	alpha, err := reflectionv1alpha.NewServerReflectionClient(r.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := alpha.Send(&reflectionv1alpha.ServerReflectionRequest{MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	ares, err := alpha.Recv()
	if err != nil || len(ares.GetListServicesResponse().GetService()) != len(want) {
		t.Errorf("v1alpha: %v, %v", ares, err)
	}
}

func TestShutdownEndsStreamsAtOnce(t *testing.T) {
	r := start(t)
	watch := watchConfig(t, r, &adminv1.WatchConfigRequest{})
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	health, err := grpc_health_v1.NewHealthClient(r.conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := health.Recv(); err != nil {
		t.Fatal(err)
	}
	// A client opens a reflection call, but neither sends nor closes.
	reflection, err := reflectionv1.NewServerReflectionClient(r.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := reflection.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := reflection.Recv(); err != nil {
		t.Fatal(err)
	}

	// The context has no deadline: Shutdown must not need one.
	if err := r.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	_, err = watch.Recv()
	wantCode(t, err, codes.Unavailable)
	for err = nil; err == nil; { // NOT_SERVING may come first
		_, err = health.Recv()
	}
	wantCode(t, err, codes.Unavailable)
	_, err = reflection.Recv()
	wantCode(t, err, codes.Unavailable)
}

func TestShutdownLetsAWriteFinish(t *testing.T) {
	r := start(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	r.gateway.before = func(context.Context, store.Edit) {
		close(begun)
		<-finish
	}
	answered := make(chan error, 1)
	go func() {
		_, err := r.admin.PutUpstream(context.Background(), &adminv1.PutUpstreamRequest{Upstream: upstream("payments")})
		answered <- err
	}()
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- r.Shutdown(context.Background()) }()
	<-r.stopping
	close(finish)
	if err := <-answered; err != nil {
		t.Errorf("the write was answered with %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if r.gateway.State().Revision() != 1 {
		t.Error("the write was not applied")
	}
}

func TestShutdownCancelsCallsThatOutlastItsContext(t *testing.T) {
	r := start(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	r.gateway.before = func(ctx context.Context, _ store.Edit) {
		close(begun)
		<-ctx.Done()
		<-finish
	}
	answered := make(chan error, 1)
	go func() {
		_, err := r.admin.PutUpstream(context.Background(), &adminv1.PutUpstreamRequest{Upstream: upstream("payments")})
		answered <- err
	}()
	<-begun
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- r.Shutdown(ctx) }()
	wantCode(t, <-answered, codes.Unavailable)
	select {
	case err := <-stopped:
		t.Errorf("Shutdown returned (%v) while a handler ran", err)
	default:
	}
	close(finish)
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if r.gateway.State().Revision() != 0 {
		t.Error("a canceled write was applied")
	}
}

func TestServeAfterShutdownClosesItsListener(t *testing.T) {
	s := New(Options{Gateway: newFake()})
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "admin.sock")
	lis, err := unixsocket.Listen(path, unixsocket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(lis); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there")
	}
}

func TestShutdownRemovesTheSocket(t *testing.T) {
	r := start(t)
	if err := r.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	// If Shutdown ran first, Serve closes the socket at once.
	err := <-r.served
	r.served <- err
	if _, err := os.Lstat(r.socket); err == nil {
		t.Error("the socket is still there")
	}
}
