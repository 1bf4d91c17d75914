package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/gateway/admin"
	"github.com/drawbridge-gateway/drawbridge/gateway/files"
	"github.com/drawbridge-gateway/drawbridge/gateway/guard"
	"github.com/drawbridge-gateway/drawbridge/gateway/history"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Options configure a Gateway. Every zero field but DataDir is useful.
type Options struct {
	// DataDir holds the desired state, private keys with it. It is created if
	// it is missing, and belongs to one process at a time.
	DataDir string

	// AdminSocket is the path of the admin API's unix socket. Empty: admin.sock
	// in DataDir.
	AdminSocket string

	// AdminAccess says who may connect to that socket. The zero value: the user that
	// runs the gateway.
	AdminAccess unixsocket.Options

	// AdminTCP, if not nil, serves the admin API over TCP too, with mutual TLS.
	AdminTCP *admin.TCPOptions

	// FileRoots are the directories below which certificates, trust bundles and
	// revocation lists are read from files; links may lead into them, but not
	// out. Nil: DataDir and /etc/drawbridge.
	FileRoots []string

	// Ops is the address of /healthz, /readyz, /metrics and, on loopback,
	// /debug/pprof. Empty: none.
	Ops string

	// Ready is what readiness requires besides that the gateway serves.
	Ready Readiness

	// LogDropped returns how many lines of the log were dropped because whoever
	// reads it was too slow. Nil: none ever is.
	LogDropped func() uint64

	// Statsd is the UDP address, host:port, that metrics are sent to as well.
	// Empty: none.
	Statsd string

	// DrainTimeout is how long connections may go on once their listener was
	// removed or the gateway stops. 0: 30s.
	DrainTimeout time.Duration

	// AccessLog is where requests and connections are recorded. The zero value:
	// nowhere.
	AccessLog AccessLog

	// Version is what GetStatus answers.
	Version string

	Logger hclog.Logger // nil discards

	blocking func(context.Context, func()) error // a test's stand-in for a file system that hangs
}

// An AccessLog says where requests and connections are recorded, and how. There is
// none without a File or an Output.
type AccessLog struct {
	// File is the path of a file that is appended to. Its directory must exist.
	File string

	// Output is what is written to if there is no File. It stays the caller's.
	Output io.Writer

	// Text has records be lines of text, as nginx's are and more. False: they are
	// JSON.
	Text bool
}

// open opens the log; nil if there is none.
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

// A durable keeps the desired state. A draft it has committed survives the death
// of the process; one it has refused has left no trace.
type durable interface {
	State() *store.State
	Commit(*store.Draft) error
	Close() error
}

// A Gateway is a running gateway. Its methods may be called concurrently.
type Gateway struct {
	version string
	log     hclog.Logger
	started time.Time

	writer   sync.Mutex      // held by the one writer; traffic never takes it
	closing  bool            // guarded by writer
	stopping context.Context // ends when the gateway stops; writes that are not committed then fail
	stop     context.CancelFunc
	store    durable
	compiler snapshot.Compiler

	live        atomic.Pointer[snapshot.Snapshot]
	listeners   *listeners.Set
	descriptors *listeners.Descriptors
	accessLog   *accesslog.Logger // nil: there is none
	files       *files.Watcher
	instance    string // identifies the store
	updates     *history.Log[store.Update]
	events      *history.Log[*adminv1.Event]
	inUse       atomic.Pointer[inUseList]
	ready       atomic.Bool

	readiness    Readiness
	logDropped   func() uint64
	admin        *admin.Server
	adminSockets []net.Listener
	adminTCP     *admin.TCPListener // nil: not served; else also in adminSockets
	ops          *opsServer
	metrics      *publisher
}

// maxFilling is how many connections are made ahead of need at once: as a gateway
// starts, those who wait for a handshake of their own come first.
const maxFilling = 16

// Open takes the data directory, makes the stored state live as far as it can
// be, and binds the admin sockets. The caller must call Run or Close.
func Open(o Options) (_ *Gateway, err error) {
	log := o.Logger
	if log == nil {
		log = hclog.NewNullLogger()
	}
	g := &Gateway{readiness: o.Ready, logDropped: o.LogDropped, version: o.Version, log: log.Named("gateway"), started: time.Now()}
	g.events = history.New[*adminv1.Event](keptEvents, keptEventBytes, g.started.UnixMicro())
	g.stopping, g.stop = context.WithCancel(context.Background())
	g.compiler.Logger = log.Named("bridge")
	g.compiler.Observer = g.observe
	g.descriptors = listeners.NewDescriptors(g.log)
	g.compiler.Descriptors = g.descriptors.Descriptors
	g.compiler.Filling = make(chan struct{}, maxFilling)
	g.live.Store(new(snapshot.Snapshot))
	// What is opened is closed again in the opposite order if a later step fails.
	var undo []func()
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()
	if g.accessLog, err = o.AccessLog.open(g.log); err != nil {
		return nil, err
	}
	undo = append(undo, g.closeAccessLog)
	g.listeners, err = listeners.New(listeners.Options{
		Live: g.live.Load, Descriptors: g.descriptors, Drain: o.DrainTimeout, AccessLog: g.accessLog, Logger: log.Named("bridge"),
	})
	if err != nil {
		return nil, err
	}
	undo = append(undo, g.listeners.Shutdown)
	db, err := bolt.Open(o.DataDir)
	if err != nil {
		return nil, err
	}
	g.store, g.instance = db, db.InstanceID()
	g.updates = history.New[store.Update](keptUpdates, keptUpdateBytes, db.State().Revision())
	undo = append(undo, func() { db.Close() })

	if g.compiler.FileRoots, err = fileRoots(o); err != nil {
		return nil, err
	}
	g.compiler.Blocking = o.blocking
	if g.compiler.Blocking == nil {
		g.compiler.Blocking = files.NewPool().Do
	}
	g.files = files.NewWatcher(fileGateway{g}, g.compiler.FileRoots, g.compiler.Blocking, log.Named("files"))
	if g.metrics, err = newPublisher(g, o.Statsd); err != nil {
		return nil, err
	}
	undo = append(undo, g.metrics.close)

	socket, err := unixsocket.Listen(cmp.Or(o.AdminSocket, filepath.Join(o.DataDir, "admin.sock")), o.AdminAccess)
	if err != nil {
		return nil, err
	}
	limits := g.ownLimits(log)
	g.adminSockets = append(g.adminSockets, guard.New(socket, limits))
	undo = append(undo, func() { socket.Close() })
	if o.AdminTCP != nil {
		o := *o.AdminTCP
		o.Limits = limits
		if g.adminTCP, err = admin.ListenTCP(o); err != nil {
			return nil, err
		}
		g.adminSockets = append(g.adminSockets, g.adminTCP)
		undo = append(undo, func() { g.adminTCP.Close() })
	}
	if o.Ops != "" {
		if g.ops, err = listenOps(g, o.Ops, limits); err != nil {
			return nil, err
		}
	}
	g.admin = admin.New(admin.Options{Gateway: g, Logger: log, Metrics: g.metrics.process})
	g.descriptors.Settle(limits.Connections * (len(g.adminSockets) + 1))
	g.restore(db.State())
	return g, nil
}

// ownLimits bounds each of the gateway's own servers. As many descriptors are kept
// from traffic as they may take.
func (g *Gateway) ownLimits(log hclog.Logger) guard.Options {
	limit, _, _ := g.descriptors.Usage()
	connections, perAddress := guard.Limits(limit)
	return guard.Options{Connections: connections, PerAddress: perAddress, Logger: log.Named("guard")}
}

// Run serves until ctx ends, and then stops in order: it is not ready any more,
// takes no more writes and no more connections, lets those it has go on until
// they end or the drain timeout has passed, and closes everything. It returns
// nil after a stop that ctx asked for.
func (g *Gateway) Run(ctx context.Context) error {
	failed := make(chan error, len(g.adminSockets)+1)
	var serving sync.WaitGroup
	for _, socket := range g.adminSockets {
		g.log.Info("admin API up", "address", listeners.AddressText(socket.Addr()))
		serving.Go(func() {
			if err := g.admin.Serve(socket); err != nil {
				failed <- fmt.Errorf("admin API on %s: %w", listeners.AddressText(socket.Addr()), err)
			}
		})
	}
	if g.ops != nil {
		g.log.Info("ops up", "address", g.ops.Addr().String())
		serving.Go(func() {
			if err := g.ops.serve(); err != nil {
				failed <- fmt.Errorf("ops on %s: %w", g.ops.Addr(), err)
			}
		})
	}
	ticking, stopTicking := context.WithCancel(context.WithoutCancel(ctx))
	serving.Go(func() { g.metrics.run(ticking) })
	serving.Go(func() { g.watchExpiry(ticking) })
	if g.adminTCP != nil {
		serving.Go(func() { g.watchAdminFiles(ticking) })
	}
	watching, stopWatching := context.WithCancel(ctx)
	serving.Go(func() { g.files.Run(watching) })

	g.setReady(true)
	g.log.Info("ready", "version", g.version, "revision", g.live.Load().State().Revision())
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		g.log.Error("stopping", "error", err)
	}
	stopWatching()
	g.drain()
	stopTicking()
	g.stopServing()
	serving.Wait()
	return errors.Join(err, g.release())
}

// Close ends a gateway that Run was not called on.
func (g *Gateway) Close() error {
	g.drain()
	g.stopServing()
	for _, socket := range g.adminSockets {
		socket.Close()
	}
	return g.release()
}

func (g *Gateway) setReady(ready bool) {
	g.ready.Store(ready)
	g.admin.SetServing(ready)
}

// drain refuses writes and connections, and returns when the last connection
// has ended. The admin API still answers what there is to see.
func (g *Gateway) drain() {
	g.setReady(false)
	g.log.Info("draining")
	g.stop()
	g.writer.Lock()
	g.closing = true
	g.writer.Unlock()
	g.live.Load().Cool() // nobody comes any more
	g.listeners.Shutdown()
	g.live.Load().Retire(new(snapshot.Snapshot))
}

// stopTimeout is how long calls to the admin API and to ops may take to end.
const stopTimeout = 5 * time.Second

func (g *Gateway) stopServing() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := g.admin.Shutdown(ctx); err != nil {
		g.log.Warn("admin calls cut off", "error", err)
	}
	g.updates.Close()
	g.events.Close()
	if g.ops != nil {
		g.ops.shutdown(ctx)
	}
}

// closeAccessLog writes what is left of the access log, in a time.
func (g *Gateway) closeAccessLog() {
	if g.accessLog == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := g.accessLog.Close(ctx); err != nil {
		g.log.Error("the rest of the access log is lost", "error", err)
	}
}

// ReopenAccessLog has the access log's file opened anew by its path, for one that
// was renamed: what is recorded from now on is in the new one. Without a file it
// does nothing.
func (g *Gateway) ReopenAccessLog(ctx context.Context) error {
	if g.accessLog == nil {
		return nil
	}
	return g.accessLog.Reopen(ctx)
}

func (g *Gateway) release() error {
	g.closeAccessLog()
	g.metrics.close()
	err := g.store.Close()
	g.log.Info("stopped")
	return err
}

// State returns the desired state of the live revision.
func (g *Gateway) State() *store.State { return g.live.Load().State() }

// Present returns a copy of a resource that is fit to be shown: without its
// private key, and with what its certificates say of themselves.
func (g *Gateway) Present(r store.Resource) store.Resource { return g.live.Load().Present(r) }

// AdminAddress returns the address of the admin API's unix socket: "unix:/…".
func (g *Gateway) AdminAddress() string { return listeners.AddressText(g.adminSockets[0].Addr()) }

// AdminTCPAddress returns the address of the admin API over TCP; empty if it is
// not served.
func (g *Gateway) AdminTCPAddress() string {
	if g.adminTCP == nil {
		return ""
	}
	return g.adminTCP.Addr().String()
}

// OpsAddress returns the address of /metrics and the rest; empty if they are not
// served.
func (g *Gateway) OpsAddress() string {
	if g.ops == nil {
		return ""
	}
	return g.ops.Addr().String()
}
