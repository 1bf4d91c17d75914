package admin

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/armon/go-metrics"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
	"github.com/drawbridge-gateway/drawbridge/gateway/history"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeGateway holds real states and applies edits to them, but serves no
// traffic.
type fakeGateway struct {
	mu      sync.Mutex
	state   *store.State
	updates *history.Log[store.Update]
	events  *history.Log[*adminv1.Event]

	before  func(context.Context, store.Edit) // called by Apply first; may panic or block
	refusal *invalid.Error                    // the error that Apply returns, if not nil
	records memoryHistory
	drained string // the last arguments of DrainConnections
}

// Backup returns more bytes than fit in one message.
func (g *fakeGateway) Backup() (io.ReadCloser, error) {
	if g.refusal != nil {
		return nil, g.refusal
	}
	return io.NopCloser(strings.NewReader(strings.Repeat("backup", chunkBytes))), nil
}

func newFake() *fakeGateway {
	return &fakeGateway{state: &store.State{}, updates: history.New[store.Update](16, 1<<20, 0), events: history.New[*adminv1.Event](16, 1<<20, 100)}
}

func (g *fakeGateway) Apply(ctx context.Context, e store.Edit) (*store.Result, error) {
	if g.before != nil {
		g.before(ctx, e)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if g.refusal != nil {
		return nil, g.refusal
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var bad invalid.List
	draft := g.state.Edit(e, &bad)
	if err := bad.Err(); err != nil {
		return nil, err
	}
	pending := revisions.NewRecord(draft, e, time.Now(), noFiles).Pending
	res := &store.Result{Pending: pending, Base: g.state, State: draft.State(), Revision: draft.State().Revision(), Changes: draft.Changes(), Present: g.Present}
	if e.DryRun {
		res.Revision = g.state.Revision()
	}
	if e.DryRun || !draft.Changed() {
		return res, nil
	}
	g.records.add(revisions.NewRecord(draft, e, time.Now(), noFiles))
	g.state = draft.State()
	u := draft.Update(e.Comment)
	g.updates.Append(func(int64) (store.Update, int) { return u, u.Size() })
	return res, nil
}

func (g *fakeGateway) State() *store.State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state
}

func (g *fakeGateway) Present(r store.Resource) store.Resource {
	r = proto.Clone(r).(store.Resource)
	if c, ok := r.(*adminv1.Certificate); ok && c.GetPem() != nil {
		c.GetPem().PrivateKey = ""
		c.Info = &adminv1.CertificateInfo{ChainLength: 1}
	}
	return r
}

func (g *fakeGateway) History() *revisions.History { return revisions.NewHistory(&g.records) }

func (g *fakeGateway) Diff(from int64, to *int64) ([]revisions.Difference, int64, error) {
	state := g.State()
	upTo := state.Revision()
	if to != nil {
		upTo = *to
	}
	all, err := g.History().Diff(state, noFiles, from, upTo)
	return all, upTo, err
}

func (g *fakeGateway) RollbackEdit(to int64) (store.Edit, error) {
	return g.History().Rollback(g.State(), to)
}

// Confirm treats revision 1 as pending.
func (g *fakeGateway) Confirm(_ context.Context, n int64, o store.Origin) (*adminv1.Revision, error) {
	if n != 1 {
		return nil, invalid.Errorf(invalid.Pending, "revision", "is not pending")
	}
	return &adminv1.Revision{Revision: n, ConfirmPrincipal: o.Principal}, nil
}

func noFiles(store.Ref) string { return "" }

// A memoryHistory stores all records.
type memoryHistory struct {
	mu      sync.Mutex
	records []*revisions.Record
}

func (h *memoryHistory) add(r *revisions.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.records = append(h.records, r)
}

// all returns the records. The record of revision n is at index n-1.
func (h *memoryHistory) all() []*revisions.Record {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.records
}

func (h *memoryHistory) Revision(n int64) (*adminv1.Revision, error) {
	if all := h.all(); n >= 1 && n <= int64(len(all)) {
		return proto.Clone(all[n-1].Revision).(*adminv1.Revision), nil
	}
	return nil, nil
}

func (h *memoryHistory) EachRevision(last int64, yield func(*adminv1.Revision) bool) error {
	for ; last >= 1; last-- {
		if r, _ := h.Revision(last); r == nil || !yield(r) {
			break
		}
	}
	return nil
}

func (h *memoryHistory) EachPrior(after, last int64, yield func(revisions.Prior)) (bool, error) {
	for _, r := range h.all()[min(after, last):last] {
		for _, p := range r.Priors {
			yield(p)
		}
	}
	return true, nil
}

func (h *memoryHistory) Oldest() (int64, error) { return int64(min(1, len(h.all()))), nil }

func (g *fakeGateway) InstanceID() string { return "store-1" }

func (g *fakeGateway) Updates(after int64) ([]store.Update, <-chan struct{}, error) {
	return g.updates.After(after)
}

func (g *fakeGateway) Events(after int64) ([]*adminv1.Event, <-chan struct{}, error) {
	return g.events.After(after)
}

func (g *fakeGateway) EventBounds() (before, last int64) { return g.events.Bounds() }

func (g *fakeGateway) Status() *adminv1.GetStatusResponse {
	out := &adminv1.GetStatusResponse{Version: "test", Revision: g.State().Revision()}
	for _, r := range g.State().List(adminv1.Kind_KIND_LISTENER) {
		out.Listeners = append(out.Listeners, &adminv1.ListenerStatus{Name: r.GetName()})
	}
	if n := len(out.Listeners); n > 0 { // the first listener also drains at its old address
		out.Listeners = append(out.Listeners, &adminv1.ListenerStatus{Name: out.Listeners[0].GetName(), State: adminv1.ListenerState_LISTENER_STATE_DRAINING})
	}
	return out
}

func (g *fakeGateway) UpstreamStatus(name string) *adminv1.UpstreamStatus {
	if g.State().Get(adminv1.Kind_KIND_UPSTREAM, name) == nil {
		return nil
	}
	return &adminv1.UpstreamStatus{Name: name}
}

// EachCertificate yields as many certificates as there are upstreams.
func (g *fakeGateway) EachCertificate(after *CertificateKey, yield func(CertificateKey, *adminv1.CertificateInUse) bool) {
	for i, r := range g.State().List(adminv1.Kind_KIND_UPSTREAM) {
		k := CertificateKey{NotAfter: int64(i), Name: r.GetName(), Endpoint: "unix:/run/a b"}
		if after != nil && k.Compare(*after) <= 0 {
			continue
		}
		if !yield(k, &adminv1.CertificateInUse{Name: r.GetName(), DaysLeft: int32(i)}) {
			return
		}
	}
}

// happen sends an event to all clients that watch events.
func (g *fakeGateway) happen(e *adminv1.Event) {
	g.events.Append(func(sequence int64) (*adminv1.Event, int) {
		e.Sequence = sequence
		return e, 100
	})
}

// EachConnection yields three connections, 1 to 3, of the listener "web".
func (g *fakeGateway) EachConnection(f *adminv1.ConnectionFilter, after uint64, yield func(uint64, *adminv1.Connection) bool) error {
	if l := f.GetListeners(); len(l) > 0 && l[0] != "web" {
		return invalid.Errorf(invalid.Argument, "connection_filter.listeners", "is not web")
	}
	for n := after + 1; n <= 3; n++ {
		if !yield(n, &adminv1.Connection{Id: fmt.Sprint(n), Listener: "web"}) {
			break
		}
	}
	return nil
}

func (g *fakeGateway) CloseConnections(f *adminv1.ConnectionFilter, grace time.Duration) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drained = fmt.Sprintf("%s %v", selection(f), grace)
	return 2, nil
}

func (g *fakeGateway) Probe(_ context.Context, req *adminv1.ProbeUpstreamRequest) (*adminv1.ProbeUpstreamResponse, error) {
	if err := g.known("name", req.GetName()); err != nil {
		return nil, err
	}
	return &adminv1.ProbeUpstreamResponse{Results: []*adminv1.ProbeResult{{Endpoint: req.GetEndpoint()}}}, nil
}

func (g *fakeGateway) Explain(req *adminv1.ExplainRouteRequest) (*adminv1.ExplainRouteResponse, error) {
	return &adminv1.ExplainRouteResponse{Action: adminv1.ExplainedAction_EXPLAINED_ACTION_FORWARD, Host: req.GetHost()}, nil
}

func (g *fakeGateway) FlushSessions(upstream string) (int, error) {
	if err := g.known("upstream", upstream); err != nil {
		return 0, err
	}
	return 7, nil
}

func (g *fakeGateway) DrainConnections(upstream, fingerprint string, period time.Duration) (int, error) {
	if err := g.known("upstream", upstream); err != nil {
		return 0, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drained = fmt.Sprintf("%s %q %v", upstream, fingerprint, period)
	return 3, nil
}

func (g *fakeGateway) known(path invalid.Path, upstream string) error {
	if g.State().Get(adminv1.Kind_KIND_UPSTREAM, upstream) == nil {
		return invalid.Errorf(invalid.NotFound, path, "there is no upstream %q", upstream)
	}
	return nil
}

// A running is a server on a unix socket. It is stopped when the test ends.
type running struct {
	*Server
	gateway     *fakeGateway
	log         *logtest.Buffer
	sink        *metrics.InmemSink
	socket      string
	served      chan error
	conn        *grpc.ClientConn
	admin       adminv1.AdminServiceClient
	status      adminv1.StatusServiceClient
	diagnostics adminv1.DiagnosticsServiceClient
}

func start(t *testing.T, change ...func(*Options)) *running {
	t.Helper()
	r := &running{gateway: newFake(), log: &logtest.Buffer{}, socket: filepath.Join(t.TempDir(), "admin.sock"), served: make(chan error, 1)}
	r.sink = metrics.NewInmemSink(1e12, 2e12)
	cfg := metrics.DefaultConfig("drawbridge")
	cfg.EnableHostname, cfg.EnableRuntimeMetrics = false, false
	m, err := metrics.New(cfg, r.sink)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Shutdown)
	o := Options{
		Gateway: r.gateway,
		Logger:  hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: r.log}),
		Metrics: m,
	}
	for _, c := range change {
		c(&o)
	}
	r.Server = New(o)
	lis, err := unixsocket.Listen(r.socket, unixsocket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	go func() { r.served <- r.Serve(lis) }()
	r.conn = dial(t, r.socket)
	r.admin = adminv1.NewAdminServiceClient(r.conn)
	r.status = adminv1.NewStatusServiceClient(r.conn)
	r.diagnostics = adminv1.NewDiagnosticsServiceClient(r.conn)
	t.Cleanup(func() {
		r.conn.Close()
		if err := r.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-r.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

// alsoServe serves on an additional listener until the test ends.
func (r *running) alsoServe(t *testing.T, lis net.Listener) {
	served := make(chan error, 1)
	go func() { served <- r.Serve(lis) }()
	t.Cleanup(func() {
		r.Shutdown(context.Background())
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func dial(t *testing.T, socket string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("unix:"+socket, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Fatalf("code = %v (%v), want %v", got, err, want)
	}
}

// detail returns the first detail of type D that err carries.
func detail[D proto.Message](t *testing.T, err error) D {
	t.Helper()
	for _, d := range status.Convert(err).Details() {
		if d, ok := d.(D); ok {
			return d
		}
	}
	var none D
	t.Fatalf("no %T among the details of %v: %v", none, err, status.Convert(err).Details())
	return none
}

func upstream(name string) *adminv1.Upstream {
	return &adminv1.Upstream{Name: name, Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1"}}}
}

func listener(name, upstream string) *adminv1.Listener {
	return &adminv1.Listener{Name: name, Address: "127.0.0.1:0", Upstream: upstream}
}

// putUpstreams puts u-0000, u-0001, … in one revision.
func putUpstreams(t *testing.T, r *running, n int) {
	t.Helper()
	req := &adminv1.ApplyRequest{}
	for i := range n {
		req.Resources = append(req.Resources, store.Wrap(upstream(fmt.Sprintf("u-%04d", i))))
	}
	if _, err := r.admin.Apply(t.Context(), req); err != nil {
		t.Fatal(err)
	}
}
