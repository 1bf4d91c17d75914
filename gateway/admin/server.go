package admin

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/armon/go-metrics"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/drawbridge-gateway/drawbridge/gateway/access"
	"github.com/drawbridge-gateway/drawbridge/gateway/audit"
	"github.com/drawbridge-gateway/drawbridge/gateway/fielddiff"
	"github.com/drawbridge-gateway/drawbridge/gateway/guard"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	maxRequest    = 128 << 20 // bytes: enough for an Apply of the largest state
	maxResponse   = 16 << 20  // bytes
	maxHeaderList = 64 << 10  // bytes of a request's headers, uncompressed
	maxStreams    = 128       // concurrent calls on a connection
	unaryTimeout  = 30 * time.Second
	connTimeout   = 25 * time.Second       // bounds the setup of TLS and HTTP/2; gRPC clients wait 20 s
	refusalEvery  = 10 * time.Second       // interval of log lines about rejected connections
	flushTime     = 250 * time.Millisecond // time for sending the last responses
)

// A Gateway is the gateway that the admin API controls. All methods may be
// called concurrently.
type Gateway interface {
	// Apply applies an edit, or only checks it with DryRun. Its errors are
	// *invalid.Error, or the context's.
	Apply(ctx context.Context, e store.Edit) (*store.Result, error)

	// State returns the desired state that is live now.
	State() *store.State

	// Present returns a copy of r to show to clients: without private keys, and with
	// info filled in.
	Present(r store.Resource) store.Resource

	// History answers questions about earlier revisions.
	History() *revisions.History

	// Diff returns the resources that differ between two revisions, and the second one;
	// nil stands for the live one. RollbackEdit returns an edit that rolls back to a
	// revision; its ExpectedRevision is the live revision. Their errors are
	// *invalid.Error.
	Diff(from int64, to *int64) ([]revisions.Difference, int64, error)
	RollbackEdit(to int64) (store.Edit, error)

	// Confirm makes a pending revision permanent. Its error is an *invalid.Error.
	Confirm(ctx context.Context, revision int64, o store.Origin) (*adminv1.Revision, error)

	// Backup returns a copy of the store as of one revision, with all private keys. The
	// caller closes it.
	Backup() (io.ReadCloser, error)

	// InstanceID identifies the store that revisions belong to.
	InstanceID() string

	// Updates returns the updates after a revision, and Events the events after a
	// sequence number, like history.Log.After. The results are shared and must not be
	// modified.
	Updates(after int64) ([]store.Update, <-chan struct{}, error)
	Events(after int64) ([]*adminv1.Event, <-chan struct{}, error)

	// EventBounds returns the sequence number before the oldest stored event, and the
	// sequence number of the last event.
	EventBounds() (before, last int64)

	// Status returns the current status, with every listener in the order of names.
	// UpstreamStatus returns the status of one upstream, or nil if the upstream is not
	// live. The caller owns the messages.
	Status() *adminv1.GetStatusResponse
	UpstreamStatus(name string) *adminv1.UpstreamStatus

	// EachCertificate calls yield with the certificates in use, soonest to expire
	// first, until yield returns false. It starts after the given key, or with the
	// first certificate if the key is nil.
	EachCertificate(after *CertificateKey, yield func(CertificateKey, *adminv1.CertificateInUse) bool)

	// EachConnection calls yield with each open connection that matches the filter and has
	// a number after the given one, in the order of numbers, until yield returns false.
	// Its error is an *invalid.Error.
	EachConnection(f *adminv1.ConnectionFilter, after uint64, yield func(number uint64, c *adminv1.Connection) bool) error

	// CloseConnections closes the open connections that match the filter within a grace
	// period, and returns their number. Its error is an *invalid.Error.
	CloseConnections(f *adminv1.ConnectionFilter, grace time.Duration) (int, error)

	// Probe and Explain answer requests of DiagnosticsService. FlushSessions
	// returns how many sessions of the upstream were discarded, and
	// DrainConnections how many of its connections will be closed: those made
	// with the client certificate of the fingerprint, or all if it is "".
	// Their errors are *invalid.Error.
	Probe(ctx context.Context, req *adminv1.ProbeUpstreamRequest) (*adminv1.ProbeUpstreamResponse, error)
	Explain(req *adminv1.ExplainRouteRequest) (*adminv1.ExplainRouteResponse, error)
	FlushSessions(upstream string) (int, error)
	DrainConnections(upstream, fingerprint string, period time.Duration) (int, error)
}

// Options configure a Server.
type Options struct {
	Gateway Gateway          // required
	Logger  hclog.Logger     // nil discards
	Metrics *metrics.Metrics // nil measures nothing

	// Fleet is the fleet of the gateway. Nil: the gateway belongs to no fleet.
	Fleet Fleet

	// Access says what callers may do. Nil: every caller is an admin.
	Access *access.Controller

	// Audit records denials, probes, actions on traffic, and writes that are refused or
	// only checked. The Gateway records the other writes. Nil disables it.
	Audit *audit.Log

	// SendTimeout is how long a stream's client may take to read a message before
	// the stream is ended. 0: 30s.
	SendTimeout time.Duration
}

// A Server is the admin API. Its methods may be called concurrently.
type Server struct {
	gateway Gateway
	log     hclog.Logger
	metrics *metrics.Metrics
	access  *access.Controller
	audit   *audit.Log
	rights  access.Rights

	fleet Fleet // nil: no fleet

	grpc   *grpc.Server
	health *health.Server
	fields *fielddiff.Differ

	sendTimeout time.Duration
	open        streamCounts

	stopOnce sync.Once
	stopping chan struct{}  // closed when Shutdown begins
	streams  sync.WaitGroup // goroutines of streaming calls
	calls    inFlight
}

// New returns a server that reports itself as serving. It owns no goroutine
// until Serve is called.
func New(o Options) *Server {
	log := o.Logger
	if log == nil {
		log = hclog.NewNullLogger()
	}
	s := &Server{
		gateway:  o.Gateway,
		fleet:    o.Fleet,
		log:      log.Named("admin"),
		metrics:  o.Metrics,
		access:   cmp.Or(o.Access, new(access.Controller)),
		audit:    o.Audit,
		rights:   rights(),
		health:   health.NewServer(),
		fields:   fielddiff.New(),
		stopping: make(chan struct{}),

		sendTimeout: cmp.Or(o.SendTimeout, 30*time.Second),
	}
	s.grpc = grpc.NewServer(
		grpc.Creds(&transport{log: s.log, refused: guard.NewLimiter(refusalEvery)}),
		grpc.InTapHandle(s.tap),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxSendMsgSize(maxResponse),
		grpc.MaxHeaderListSize(maxHeaderList),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(connTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             10 * time.Second,
			PermitWithoutStream: true,
		}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:    time.Minute,
			Timeout: 20 * time.Second,
		}),
		// A write that has begun ends before Shutdown returns.
		grpc.WaitForHandlers(true),
	)
	adminv1.RegisterAdminServiceServer(s.grpc, adminService{Server: s})
	adminv1.RegisterStatusServiceServer(s.grpc, statusService{Server: s})
	adminv1.RegisterDiagnosticsServiceServer(s.grpc, diagnosticsService{Server: s})
	adminv1.RegisterFleetServiceServer(s.grpc, fleetService{Server: s})
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc) // v1 and v1alpha
	s.SetServing(true)
	return s
}

// Serve answers calls on lis, which must be a unix socket or come from
// ListenTCP: connections of any other kind are rejected. It takes ownership of lis,
// returns nil after Shutdown, and may be called once per listener.
func (s *Server) Serve(lis net.Listener) error {
	if err := s.grpc.Serve(lis); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil // Shutdown was called before; gRPC has closed lis
}

// SetServing sets the state that the health service reports, for the server ("") and
// for each service. After Shutdown has begun it does nothing.
func (s *Server) SetServing(serving bool) {
	status := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if serving {
		status = grpc_health_v1.HealthCheckResponse_SERVING
	}
	for _, service := range []string{
		"",
		adminv1.AdminService_ServiceDesc.ServiceName,
		adminv1.StatusService_ServiceDesc.ServiceName,
		adminv1.DiagnosticsService_ServiceDesc.ServiceName,
		adminv1.FleetService_ServiceDesc.ServiceName,
	} {
		s.health.SetServingStatus(service, status)
	}
}

// Shutdown stops the server: health says NOT_SERVING, listeners close, streams
// end with UNAVAILABLE, and calls in progress may finish until ctx ends. Then
// they are canceled, and Shutdown returns the context's error once they have
// returned. Call it before the gateway closes its history logs, so that watchers
// receive UNAVAILABLE and not an error about slow reading.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopOnce.Do(func() {
		s.health.Shutdown()
		close(s.stopping)
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.grpc.GracefulStop()
	}()
	// A graceful stop of gRPC also waits until clients close idle connections, even if
	// they do not answer pings. Shutdown stops earlier: once every call has ended and
	// its response has had time to be sent. A client that learns late of the stop may
	// begin a call meanwhile, which is answered too.
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		for begun := ^uint64(0); begun != s.calls.begun(); {
			select {
			case <-s.calls.whenIdle():
			case <-done:
				return
			}
			begun = s.calls.begun()
			flush := time.NewTimer(flushTime)
			select {
			case <-flush.C:
			case <-done:
			}
			flush.Stop()
		}
	}()
	var err error
	select {
	case <-done:
	case <-answered:
		s.grpc.Stop()
		<-done
	case <-ctx.Done():
		err = ctx.Err()
		s.grpc.Stop()
		<-done
	}
	<-answered
	s.streams.Wait()
	return err
}
