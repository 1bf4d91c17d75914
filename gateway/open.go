package gateway

import (
	"cmp"
	"context"
	"net"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/certs/tickets"
	"github.com/drawbridge-gateway/drawbridge/gateway/access"
	"github.com/drawbridge-gateway/drawbridge/gateway/admin"
	"github.com/drawbridge-gateway/drawbridge/gateway/audit"
	"github.com/drawbridge-gateway/drawbridge/gateway/confirm"
	"github.com/drawbridge-gateway/drawbridge/gateway/connections"
	"github.com/drawbridge-gateway/drawbridge/gateway/diagnose"
	"github.com/drawbridge-gateway/drawbridge/gateway/files"
	"github.com/drawbridge-gateway/drawbridge/gateway/guard"
	"github.com/drawbridge-gateway/drawbridge/gateway/inventory"
	"github.com/drawbridge-gateway/drawbridge/gateway/listeners"
	"github.com/drawbridge-gateway/drawbridge/gateway/ops"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	"github.com/drawbridge-gateway/drawbridge/gateway/telemetry"
	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
)

// maxFilling bounds how many warm connections are dialed at once, so that on
// startup they do not compete with handshakes that clients wait for.
const maxFilling = 16

// An undoList undoes the steps of Open that have succeeded, if a later step fails.
type undoList []func()

func (u *undoList) add(undo func()) { *u = append(*u, undo) }

func (u undoList) run() {
	for _, undo := range slices.Backward(u) {
		undo()
	}
}

// Open locks the data directory, binds the admin sockets and makes the stored state
// live as far as possible. If ctx ends first, it fails. The caller must call Run or
// Close.
func Open(ctx context.Context, o Options) (_ *Gateway, err error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	g := newGateway(o)
	var undo undoList
	defer func() {
		if err != nil {
			undo.run()
		}
	}()
	if err := g.openLogs(ctx, o, &undo); err != nil {
		return nil, err
	}
	if err := g.openListeners(o, &undo); err != nil {
		return nil, err
	}
	state, err := g.openStore(ctx, o, &undo)
	if err != nil {
		return nil, err
	}
	if err := g.openFiles(o); err != nil {
		return nil, err
	}
	limits := g.ownLimits(o.Logger)
	if err := g.openAdmin(ctx, o, limits, &undo); err != nil {
		return nil, err
	}
	g.Inventory = inventory.New(g.live.Load, g.adminTLS())
	g.Diagnostics = diagnose.New(diagnose.Options{Live: g.live.Load, Compiler: &g.compiler, Down: g.listeners.DownReason, Logger: g.log})
	g.Connections = connections.New(connections.Options{Clients: g.listeners.EachConnection, Upstreams: g.trackers.EachConnection, Logger: g.log})
	if err := g.openMetrics(o, limits, &undo); err != nil {
		return nil, err
	}
	g.admin = admin.New(admin.Options{Gateway: g, Fleet: adminFleet(g.fleet), Logger: o.Logger, Metrics: g.metrics.Process(), Access: g.access, Audit: g.audit})
	g.admin.SetServing(false) // not serving until Run
	g.descriptors.Reserve(limits.Connections * (len(g.sockets) + 1))
	if err := g.restore(ctx, state); err != nil {
		return nil, err
	}
	// A later change of TLS settings must make new keys. Keys that are derived from the secrets
	// of a fleet come back with the settings: see docs/adr/0022-tickets-of-a-fleet.md.
	g.compiler.TicketKeys = nil
	if err := g.catchUp(ctx); err != nil {
		return nil, err
	}
	return g, nil
}

// listen returns the function that listens for one of the gateway's own servers.
func (o *Options) listen(owner string) func(address string) (net.Listener, error) {
	return func(address string) (net.Listener, error) {
		l, err := o.Sockets.ListenTCP(owner, address)
		if err != nil {
			return nil, err
		}
		o.Sockets.Keep(l, owner, address)
		return l, nil
	}
}

// newGateway returns a gateway that has opened nothing yet.
func newGateway(o Options) *Gateway {
	g := &Gateway{replaces: newReplacement(o), upgrades: newUpgrades(o), inherited: o.Sockets, manager: o.Manager, readiness: o.Ready, version: o.Version, log: o.Logger.Named("gateway"), started: time.Now(), confinement: o.Confinement}
	g.feeds = newFeeds(g.started)
	g.descriptors = listeners.NewDescriptors(g.log)
	g.trackers.Numbers = live.NewNumbers()
	g.writer = &writer{
		log: g.log,
		compiler: snapshot.Compiler{
			Logger: o.Logger.Named("bridge"), Observer: g.observe, Filling: make(chan struct{}, maxFilling),
			Descriptors: g.descriptors.Descriptors, Trackers: &g.trackers, Blocking: o.blocking, Now: o.now, TicketKeys: o.TicketKeys,
		},
		announce: g.feeds.announce, follows: g.feeds.followed,
	}
	g.now = o.now
	if g.now == nil {
		g.now = time.Now
	}
	if o.Fleet != nil {
		g.compiler.GatewayLabels, g.compiler.TicketSecrets = o.Fleet.Labels, new(tickets.Shared)
	}
	if g.compiler.Blocking == nil {
		g.compiler.Blocking = files.NewPool().Do
	}
	g.servers = &servers{log: g.log, blocking: g.compiler.Blocking}
	g.stopping, g.stop = context.WithCancel(context.Background())
	g.live.Store(new(snapshot.Snapshot))
	g.settled.Store(new(snapshot.Snapshot))
	return g
}

// openLogs opens the access log and the audit log.
func (g *Gateway) openLogs(ctx context.Context, o Options, undo *undoList) (err error) {
	g.accessLog, err = files.Await(ctx, g.log, "access log "+o.AccessLog.File, func() (*accesslog.Logger, error) { return o.AccessLog.open(g.log) })
	if err != nil {
		return err
	}
	undo.add(g.closeAccessLog)
	g.audit, err = files.Await(ctx, g.log, "audit log "+o.AuditLog.File, func() (*audit.Log, error) { return o.AuditLog.open(g.log) })
	if err != nil {
		return err
	}
	undo.add(g.closeAuditLog)
	return nil
}

func (g *Gateway) openListeners(o Options, undo *undoList) (err error) {
	g.listeners, err = listeners.New(listeners.Options{
		Live: g.live.Load, Descriptors: g.descriptors, Sockets: o.Sockets, Hold: g.replaces.hold, Drain: o.DrainTimeout, AccessLog: g.accessLog, Logger: o.Logger.Named("bridge"),
		Removing:   func(l *listeners.Running) func() { return g.metrics.Removing(l) },
		Unverified: g.feeds.unverified, Now: o.now, Numbers: g.trackers.Numbers,
	})
	if err != nil {
		return err
	}
	undo.add(g.listeners.Shutdown)
	return nil
}

// openStore locks and opens the data directory, and returns the state to make live.
func (g *Gateway) openStore(ctx context.Context, o Options, undo *undoList) (*store.State, error) {
	db, err := files.Await(ctx, g.log, "data directory "+o.DataDir, func() (*bolt.Store, error) {
		return bolt.Open(o.DataDir, bolt.Options{History: o.History, Key: o.SealKey})
	})
	if err != nil {
		return nil, err
	}
	undo.add(func() { db.Close() })
	g.store, g.history, g.backup, g.sealed = db, revisions.NewHistory(db), db.Backup, db.Sealed()
	g.keeper = confirm.New(g.goBack, g.log)
	if err := checkAlone(o, db); err != nil {
		return nil, err
	}
	if o.Fleet != nil {
		if g.fleet, err = joinFleet(o, db, g); err != nil {
			return nil, err
		}
		undo.add(func() { g.fleet.Close() })
		g.store = g.fleet
		g.openUpdates(g.fleet.Status().Instance, db.State().Revision())
		return db.State(), nil
	}
	state, undone, err := undoPending(db, g.history)
	if err != nil {
		return nil, err
	}
	if undone != nil {
		g.log.Warn("revision was not confirmed before the gateway stopped: rolling back", "revision", undone.GetRevision(), "to", undone.GetRollbackTo())
		g.recordUndone(undone, state)
	}
	g.openUpdates(db.InstanceID(), state.Revision())
	return state, nil
}

// openFiles prepares to read and watch the files below the file roots.
func (g *Gateway) openFiles(o Options) (err error) {
	if g.compiler.FileRoots, err = fileRoots(o); err != nil {
		return err
	}
	g.files = files.NewWatcher(fileGateway{g}, g.compiler.FileRoots, g.compiler.Blocking, o.Logger.Named("files"))
	g.filesChanged, g.checkFiles, g.readinessChanged = g.files.Changed, g.files.CheckAll, g.showReadiness
	return nil
}

// openAdmin reads the policy of the admin API and binds its sockets.
func (g *Gateway) openAdmin(ctx context.Context, o Options, limits guard.Options, undo *undoList) (err error) {
	g.access, err = files.Await(ctx, g.log, "policy of the admin service", func() (*access.Controller, error) { return access.Open(o.AdminPolicy) })
	if err != nil {
		return err
	}
	path := cmp.Or(o.AdminSocket, filepath.Join(o.DataDir, "admin.sock"))
	socket, err := o.Sockets.ListenUnix(path, o.AdminAccess, unixsocket.Listen)
	if err != nil {
		return err
	}
	o.Sockets.Keep(socket, "admin", path)
	g.sockets = append(g.sockets, guard.New(socket, limits))
	undo.add(func() { socket.Close() })
	if o.AdminTCP == nil {
		return nil
	}
	tcp := *o.AdminTCP
	tcp.Limits = limits
	tcp.Listen = o.listen("admin-tcp")
	g.adminTCP, err = files.Await(ctx, g.log, "files of the admin service", func() (*admin.TCPListener, error) { return admin.ListenTCP(tcp) })
	if err != nil {
		return err
	}
	g.sockets = append(g.sockets, g.adminTCP)
	undo.add(func() { g.adminTCP.Close() })
	return nil
}

// ownLimits returns the limits of each of the gateway's own servers. Their
// descriptors are reserved: traffic cannot use them.
func (g *Gateway) ownLimits(log hclog.Logger) guard.Options {
	limit, _, _ := g.descriptors.Usage()
	connections, perAddress := guard.Limits(limit)
	return guard.Options{Connections: connections, PerAddress: perAddress, Logger: log.Named("guard")}
}

// adminTLS returns the TLS of the admin API over TCP, or nil.
func (g *Gateway) adminTLS() inventory.AdminTLS {
	if g.adminTCP == nil {
		return nil
	}
	return g.adminTCP
}

// openMetrics connects the metrics with their sources, and binds the ops server.
func (g *Gateway) openMetrics(o Options, limits guard.Options, undo *undoList) (err error) {
	g.metrics, err = telemetry.New(telemetry.Options{
		Fleet: fleetCounts(g.fleet),
		Live:  g.live.Load, Listeners: g.listeners, Descriptors: g.descriptors, AccessLog: g.accessLog, LogDropped: o.LogDropped,
		Problems: func() int { return len(g.problems(g.live.Load())) },
		Expiries: g.Inventory.Expiries, Started: g.started, Statsd: o.Statsd,
	})
	if err != nil {
		return err
	}
	undo.add(g.metrics.Close)
	g.count, g.replacing = g.metrics.CountApply, g.metrics.Replacing
	if o.Ops == "" {
		return nil
	}
	g.ops, err = ops.Listen(ops.Options{
		Address: o.Ops, Listen: o.listen("ops"), Limits: limits, Ready: g.readyText, Metrics: g.metrics.Handler(), Logger: g.log.Named("ops"),
	})
	if err != nil {
		return err
	}
	undo.add(func() { g.ops.Shutdown(context.Background()) })
	return nil
}
