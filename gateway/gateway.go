package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/admin"
	"github.com/drawbridge-gateway/drawbridge/gateway/audit"
	"github.com/drawbridge-gateway/drawbridge/gateway/connections"
	"github.com/drawbridge-gateway/drawbridge/gateway/diagnose"
	"github.com/drawbridge-gateway/drawbridge/gateway/files"
	"github.com/drawbridge-gateway/drawbridge/gateway/handover"
	"github.com/drawbridge-gateway/drawbridge/gateway/inventory"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	"github.com/drawbridge-gateway/drawbridge/gateway/systemd"
	"github.com/drawbridge-gateway/drawbridge/gateway/telemetry"
	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Options configure a Gateway. Every zero field but DataDir is useful.
type Options struct {
	// DataDir holds the desired state, including private keys. Open creates it if
	// it is missing. Only one process may use it at a time.
	DataDir string

	// History is how many revisions are stored for rollbacks. 0: 100.
	History int

	// SealKey opens a sealed state, and seals a new one. nil: the state must not be sealed.
	SealKey *seal.Key

	// Fleet, if not nil, shares the state with other gateways. It needs a SealKey, and
	// DataDir then holds the last good copy.
	Fleet *Fleet

	// AdminSocket is the path of the admin API's unix socket. Empty: admin.sock
	// in DataDir.
	AdminSocket string

	// AdminAccess says which users may connect to that socket. The zero value
	// allows only the user that runs the gateway.
	AdminAccess unixsocket.Options

	// AdminTCP, if not nil, serves the admin API over TCP too, with mutual TLS.
	AdminTCP *admin.TCPOptions

	// AdminPolicy is the file that gives roles to callers of the admin API; see
	// access.ParsePolicy. Empty: every caller is an admin.
	AdminPolicy string

	// FileRoots are the directories below which certificates, trust bundles and
	// revocation lists are read from files. Symlinks are resolved; the target must
	// lie below a file root. Nil: DataDir and /etc/drawbridge.
	FileRoots []string

	// Ops is the address of /healthz, /readyz, /metrics and, on loopback,
	// /debug/pprof. Empty: none.
	Ops string

	// Ready holds further conditions for readiness. The gateway must always be
	// serving.
	Ready Readiness

	// LogDropped returns how many log lines were dropped because the reader of the
	// log was too slow. Nil: the log never drops lines.
	LogDropped func() uint64

	// Statsd is the UDP address, host:port, of a statsd server to send metrics to.
	// Empty: none.
	Statsd string

	// DrainTimeout bounds how long connections stay open after their listener was
	// removed or the gateway began to stop. 0: 30s.
	DrainTimeout time.Duration

	// AccessLog says where and how requests and connections are recorded. The zero
	// value disables the log.
	AccessLog AccessLog

	// AuditLog says where the gateway records the actions of callers. The zero value
	// disables the log.
	AuditLog AuditLog

	// Version is the version that GetStatus reports.
	Version string

	// Sockets holds the listening sockets that the process inherited, and passes them to the
	// next process. Nil: every socket is new, and is closed with the process.
	Sockets *handover.Sockets

	// Predecessor is the process that this one replaces. Nil: this one replaces no process.
	Predecessor *handover.Predecessor

	// TicketKeys are the TLS ticket keys of the listeners of that process. Nil: none.
	TicketKeys certs.TicketKeys

	// UpgradeTimeout bounds how long a new process may take until it serves. 0: 1m.
	UpgradeTimeout time.Duration

	// Serving is called when the gateway is ready, or has taken over. Nil: not called.
	Serving func()

	// Confinement holds the restrictions of the process, for GetStatus. Nil: there are
	// none.
	Confinement *adminv1.Confinement

	// Manager receives the state of the gateway. Nil: there is no service manager.
	Manager *systemd.Manager

	Logger hclog.Logger // nil discards

	blocking func(context.Context, func()) error // a test's stand-in for a file system that hangs
	now      func() time.Time                    // a test's clock; nil: time.Now
}

// An AccessLog says where and how requests and connections are recorded. Without a
// File or an Output, they are not recorded.
type AccessLog struct {
	// File is the path of the file to append to. Its directory must exist.
	File string

	// Output is the writer to use if File is empty. The caller closes it.
	Output io.Writer

	// Text writes records as lines of text, in an extended form of nginx's format.
	// False: as JSON.
	Text bool
}

// open opens the log. It returns nil if no log is configured.
func (o AccessLog) open(log hclog.Logger) (*accesslog.Logger, error) {
	if o.File == "" && o.Output == nil {
		return nil, nil
	}
	options := accesslog.Options{Path: o.File, Output: o.Output, Logger: log}
	if o.Text {
		options.Format = accesslog.Text
	}
	l, err := accesslog.Open(options)
	if err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	return l, nil
}

// An AuditLog says where the gateway records the actions of callers.
type AuditLog struct {
	File string // the file to append to; its directory must exist. Empty: no audit log.

	// Required refuses writes that cannot be recorded.
	Required bool
}

// open opens the log. It returns nil if no log is configured.
func (o AuditLog) open(log hclog.Logger) (*audit.Log, error) {
	if o.File == "" {
		return nil, nil
	}
	return audit.Open(audit.Options{Path: o.File, Required: o.Required, Logger: log})
}

// A Gateway is a running gateway. Its methods may be called concurrently.
type Gateway struct {
	version string
	log     hclog.Logger
	started time.Time

	*writer
	*feeds
	*servers
	*inventory.Inventory
	*diagnose.Diagnostics
	*connections.Connections

	descriptors *listeners.Descriptors
	trackers    upstream.Trackers // track connections to upstreams
	accessLog   *accesslog.Logger // nil: no access log
	files       *files.Watcher
	metrics     *telemetry.Publisher

	inherited *handover.Sockets
	manager   *systemd.Manager
	replaces  *replacement
	upgrades  upgrades

	backup func() (io.ReadCloser, error)
	sealed bool // the store is sealed

	confinement *adminv1.Confinement // nil: none

	serving   atomic.Bool
	readiness Readiness
	showing   sync.Mutex // held by showReadiness
}

// Run serves until ctx ends, and then stops in order. It reports that it is not
// ready, rejects writes and new connections, waits until open connections end or
// the drain timeout has passed, and closes everything. It returns nil if ctx
// ended, and an error if a server failed.
func (g *Gateway) Run(ctx context.Context) error {
	if err := g.takeOver(ctx); err != nil {
		return errors.Join(err, g.Close())
	}
	failed := make(chan error, g.running())
	var serving sync.WaitGroup
	g.serve(&serving, failed)
	ticking, stopTicking := context.WithCancel(context.WithoutCancel(ctx))
	serving.Go(func() { g.metrics.Run(ticking) })
	serving.Go(func() { g.Watch(ticking, g.updates.Changed, g.expiring) })
	if g.adminTCP != nil || g.access.HasFile() {
		serving.Go(func() { g.watchAdminFiles(ticking) })
	}
	serving.Go(func() { g.keeper.Run(ticking) })
	if g.fleet != nil {
		serving.Go(func() { g.fleet.Run(ticking) })
	}
	serving.Go(func() { g.manager.Watch(ticking) })
	watching, stopWatching := context.WithCancel(ctx)
	serving.Go(func() { g.files.Run(watching) })

	g.inherited.CloseUnused()
	g.setReady(true)
	g.log.Info("ready", "version", g.version, "revision", g.live.Load().State().Revision())
	g.manager.Ready(g.summary())
	g.replaces.serving()
	var err error
	select {
	case <-ctx.Done():
	case <-g.upgrades.done:
		stopWatching()
		g.listeners.StopAccepting(listeners.Ending{HandedOver: true, Reason: g.upgrades.successor})
		close(g.upgrades.stoppedAccepting)
		serving.Go(g.stopServing) // so that callers use the new process
		g.drainListeners()
		stopTicking()
		serving.Wait()
		return g.release()
	case err = <-failed:
		g.log.Error("stopping", "error", err)
	}
	stopWatching()
	g.upgrades.stop()
	g.manager.Stopping()
	g.inherited.Leave()
	g.drain()
	stopTicking()
	g.stopServing()
	serving.Wait()
	return errors.Join(err, g.release())
}

// Reloaded tells the service manager that a reload ended. A nil error: it succeeded.
func (g *Gateway) Reloaded(err error) {
	if err != nil {
		g.manager.Ready(g.summary() + "; the last reload failed: " + err.Error())
		return
	}
	g.manager.Ready(g.summary())
}

// Reloading tells the service manager that a reload began. Reloaded must follow.
func (g *Gateway) Reloading() { g.manager.Reloading() }

// Close closes a gateway whose Run was not called.
func (g *Gateway) Close() error {
	g.drain()
	g.stopServing()
	g.closeSockets()
	g.inherited.Close()
	return g.release()
}

// summary says in one line what the gateway serves.
func (g *Gateway) summary() string {
	return fmt.Sprintf("version %s serves revision %d", g.version, g.live.Load().State().Revision())
}

func (g *Gateway) setReady(ready bool) {
	g.serving.Store(ready)
	g.showReadiness()
}

// drain rejects writes and new connections, and returns when the last connection
// has ended. The admin API still answers reads.
func (g *Gateway) drain() {
	g.setReady(false)
	g.writer.close()
	g.drainListeners()
}

// drainListeners rejects new connections, and returns when the last connection has ended.
func (g *Gateway) drainListeners() {
	g.listeners.StopAccepting(listeners.Ending{})
	g.log.Info("draining")
	g.live.Load().CloseWarm() // no more clients will need a warm connection
	g.listeners.Shutdown()
	g.live.Load().Retire(new(snapshot.Snapshot))
}

// stopTimeout bounds how long a stop waits for calls to the admin API and to ops.
const stopTimeout = 5 * time.Second

func (g *Gateway) stopServing() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := g.admin.Shutdown(ctx); err != nil {
		g.log.Warn("admin calls aborted: they did not end in time", "error", err)
	}
	g.feeds.close()
	if g.ops != nil {
		g.ops.Shutdown(ctx)
	}
}

// closeAccessLog flushes and closes the access log within stopTimeout.
func (g *Gateway) closeAccessLog() {
	if g.accessLog == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := g.accessLog.Close(ctx); err != nil {
		g.log.Error("cannot flush the access log: its last records are lost", "error", err)
	}
}

// ReopenAccessLog opens the access log's file again by its path, after log
// rotation renamed the old one. Later records go to the new file. Without a file
// it does nothing.
func (g *Gateway) ReopenAccessLog(ctx context.Context) error {
	if g.accessLog == nil {
		return nil
	}
	return g.accessLog.Reopen(ctx)
}

// closeAuditLog writes and closes the audit log within stopTimeout.
func (g *Gateway) closeAuditLog() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	g.audit.Close(ctx)
}

// ReopenAuditLog opens the audit log's file again by its path, like ReopenAccessLog.
func (g *Gateway) ReopenAuditLog(ctx context.Context) error { return g.audit.Reopen(ctx) }

func (g *Gateway) release() error {
	g.closeAccessLog()
	g.closeAuditLog()
	g.metrics.Close()
	err := g.store.Close()
	g.log.Info("stopped")
	return err
}

// expiring reports a certificate that expires soon or has expired.
func (g *Gateway) expiring(e *adminv1.Event) {
	resource := "admin service"
	if e.GetKind() != adminv1.Kind_KIND_UNSPECIFIED {
		resource = store.KindName(e.GetKind()) + " " + e.GetName()
	}
	g.log.Warn("certificate expires soon or has expired", "resource", resource, "endpoint", e.GetEndpoint(), "error", e.GetMessage())
	g.event(e)
}
