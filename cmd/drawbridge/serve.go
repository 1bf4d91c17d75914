package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/configfile"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/confine"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/datadir"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/logwriter"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/memory"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/upgrade"
	"github.com/drawbridge-gateway/drawbridge/gateway"
	"github.com/drawbridge-gateway/drawbridge/gateway/admin"
	"github.com/drawbridge-gateway/drawbridge/gateway/files"
	"github.com/drawbridge-gateway/drawbridge/gateway/handover"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	"github.com/drawbridge-gateway/drawbridge/gateway/systemd"
	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
)

const serveLong = `Serve runs a gateway until SIGTERM or SIGINT. It then accepts no more connections,
waits for open ones until the drain timeout, and exits with 0. A second signal ends
it at once.

The data directory stores the configuration from the admin service, so that it is
live again after a restart. It also holds private keys, so the gateway creates it with
mode 0700. Only one process at a time can use it.

With --seal-key-file, or the systemd credential drawbridge.seal-key, the gateway
encrypts everything that it stores. It seals a new state; "store seal" seals an existing
one. The gateway does not start if the key is missing or does not fit the state.

With --store etcd the gateway shares its configuration with all gateways of a fleet, in
etcd. Any of them takes writes, and the others follow. The data directory then holds a
copy, from which the gateway serves while etcd does not answer; it refuses writes.

With --config the gateway replaces its configuration with the file (or directory of
files) at start and on SIGHUP, like one apply with --prune: it deletes resources that
the file does not name. An invalid file changes nothing: at start the program
exits and reports every fault, on SIGHUP it logs them and keeps running. SIGHUP
also reads the files of certificates and trust bundles again.

Files of certificates, trust bundles and revocation lists are watched. They must be
below the directories of --file-root, or by default below the data directory, the
directory of --config or /etc/drawbridge, so that clients of the admin service
cannot make the gateway read other files.

With --access-log the gateway records each request and each TCP connection when it
ends, in a file or on standard output. After the file is renamed, SIGUSR1 opens it
again. accessLog: OFF excludes a listener.

With --audit-log the gateway records who did what: each write twice, before it is made
and with its result, and denied calls, probes and actions on traffic. If it cannot
write the first line, it refuses the write. SIGUSR1 also opens this file again.

SIGUSR2 starts an upgrade, like the command "upgrade".

The process can use only the files that these flags name or imply, if the kernel has
Landlock: see --landlock. "status" says what is not restricted.`

func newServe(c *cli) *cobra.Command {
	o := &serveOptions{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a gateway",
		Long:  serveLong,
		Example: `  drawbridge serve --data-dir /var/lib/drawbridge
  drawbridge serve --config /etc/drawbridge/drawbridge.yaml --ops 127.0.0.1:9090
  drawbridge serve --access-log /var/log/drawbridge/access.log
  drawbridge serve --admin-tcp :7443 --admin-tls-cert gw.pem --admin-tls-key gw-key.pem --admin-client-ca ca.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.serve(cmd.Context(), o)
		},
	}
	o.addFlags(c, cmd.Flags())
	return cmd
}

func (c *cli) serve(ctx context.Context, o *serveOptions) error {
	lines := logwriter.New(c.Err)
	defer lines.Close()
	opts, err := o.gateway(c, lines)
	if err != nil {
		return err
	}
	// net/http logs some errors of upstreams only to the standard logger, with the
	// bytes from the upstream.
	log.SetFlags(0)
	log.SetOutput(opts.Logger.Named("go").StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}))
	defer log.SetOutput(os.Stderr)
	defer log.SetFlags(log.LstdFlags)
	if _, set := c.LookupEnv("GOGC"); !set {
		defer memory.Pace()()
	}
	opts.Manager = systemd.Find(opts.Logger.Named("systemd"))
	opts.Predecessor = c.predecessor
	// Do this first, so that an early SIGHUP does not end the process.
	hangup, reopen := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	signal.Notify(reopen, syscall.SIGUSR1)
	defer signal.Stop(reopen)
	upgrades := make(chan os.Signal, 1)
	signal.Notify(upgrades, syscall.SIGUSR2)
	defer signal.Stop(upgrades)
	// If the reader of standard output or standard error stops, SIGPIPE must not end the
	// gateway.
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)

	if c.ownsProcess {
		paths := func() confine.Paths { return o.paths(c, opts) }
		opts.Confinement, err = o.confine.Apply(ctx, paths, confine.Inherited(c.predecessor != nil), c.LookupEnv, opts.Logger.Named("confine"))
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}

	served := make(chan struct{})
	opts.Serving = func() {
		if err := o.pidFile.Write(); err != nil {
			opts.Logger.Error("cannot write the PID file", "error", err)
		}
		close(served)
	}
	defer o.pidFile.Remove()
	gw, err := o.open(ctx, &opts)
	if opts.Sockets != nil {
		defer opts.Sockets.Close()
	}
	switch {
	case err != nil && ctx.Err() != nil:
		opts.Logger.Info("stopped before the start was complete", "error", err)
		return nil
	case err != nil:
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var reloading sync.WaitGroup
	reloading.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				reload(ctx, gw, o.config, opts.Logger)
			}
		}
	})
	reloading.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-reopen:
				o.reopenLogs(ctx, gw, opts)
			}
		}
	})
	upgrader := upgrade.Server{Gateway: gw, Program: c.program, Sockets: opts.Sockets, Log: opts.Logger.Named("upgrade")}
	upgrader.Listen(o.dataDir)
	defer upgrader.Close()
	upgrader.Program.Env = confine.Environment(opts.Confinement)
	upgrader.Allowed = func(program string) error { return o.confine.CheckProgram(opts.Confinement, c.program.Path, program) }
	reloading.Go(func() {
		select {
		case <-ctx.Done():
		case <-served:
			upgrader.Run(ctx, upgrades)
		}
	})
	err = gw.Run(ctx)
	cancel()
	reloading.Wait()
	return err
}

// open opens the gateway and applies the configuration file, if there is one. If ctx
// ends first, it fails. open sets opts.Sockets; the caller closes them.
func (o *serveOptions) open(ctx context.Context, opts *gateway.Options) (*gateway.Gateway, error) {
	var m *manifest.Manifest
	if o.config != "" {
		var err error
		if m, err = configfile.Load(ctx, o.config, opts.Logger); err != nil {
			return nil, err
		}
	}
	if err := inherit(ctx, opts); err != nil {
		return nil, err
	}
	gw, err := gateway.Open(ctx, *opts)
	if err != nil {
		return nil, err
	}
	if m != nil {
		if err := configfile.Apply(ctx, gw, m, "start", opts.Logger); err != nil {
			return nil, errors.Join(err, gw.Close())
		}
	}
	return gw, nil
}

// inherit takes over the sockets from the service manager, or from the process to
// replace.
func inherit(ctx context.Context, opts *gateway.Options) error {
	sockets := systemd.Inherited()
	if opts.Predecessor != nil {
		e, err := opts.Predecessor.Take(ctx, opts.Version)
		if err != nil {
			return err
		}
		sockets = append(sockets, e.Sockets...)
		if opts.TicketKeys, err = certs.ParseTicketKeys(e.Tickets); err != nil {
			opts.Logger.Warn("upgrade: clients make full handshakes", "error", err)
		}
	}
	opts.Sockets = handover.New(opts.Manager, sockets, opts.Logger.Named("handover"))
	return nil
}

// gateway checks the flags and returns the options of the gateway.
func (o *serveOptions) gateway(c *cli, lines *logwriter.Writer) (gateway.Options, error) {
	opts := gateway.Options{
		DataDir: o.dataDir, Ops: o.ops, Statsd: o.statsd,
		DrainTimeout: o.drain, UpgradeTimeout: o.upgradeTimeout, Version: programVersion(), History: o.history,
	}
	level := hclog.LevelFromString(o.logLevel)
	if level == hclog.NoLevel {
		return opts, exit.UsageError(fmt.Sprintf("--log-level %q: must be trace, debug, info, warn, error or off", o.logLevel))
	}
	if o.logFormat != "text" && o.logFormat != "json" {
		return opts, exit.UsageError(fmt.Sprintf("--log-format %q: must be text or json", o.logFormat))
	}
	opts.Logger = hclog.New(&hclog.LoggerOptions{Level: level, JSONFormat: o.logFormat == "json", Output: lines})
	opts.LogDropped = lines.Dropped
	if o.drain <= 0 {
		return opts, exit.UsageError("--drain-timeout: must be more than 0s")
	}
	if o.upgradeTimeout <= 0 {
		return opts, exit.UsageError("--upgrade-timeout: must be more than 0s")
	}
	pidFile, err := absolute(string(o.pidFile))
	if err != nil {
		return opts, err
	}
	o.pidFile = upgrade.PIDFile(pidFile)
	if o.history < 1 || o.history > 10_000 {
		return opts, exit.UsageError(fmt.Sprintf("--revision-history %d: must be from 1 to 10000", o.history))
	}
	if o.dataDir == "" {
		return opts, exit.UsageError("--data-dir: must not be empty")
	}
	if o.admin != "" {
		path, ok := strings.CutPrefix(o.admin, "unix:")
		opts.AdminSocket = strings.TrimPrefix(path, "//")
		if !ok || opts.AdminSocket == "" {
			return opts, exit.UsageError(fmt.Sprintf("--admin %q: must be unix:PATH; --admin-tcp serves over TCP", o.admin))
		}
	}
	mode, err := strconv.ParseUint(o.socketMode, 8, 32)
	if err != nil || mode > 0o777 || mode&0o200 == 0 {
		return opts, exit.UsageError(fmt.Sprintf("--admin-socket-mode %q: must be permissions in octal that let the owner write, such as 0660", o.socketMode))
	}
	opts.AdminAccess = unixsocket.Options{Mode: fs.FileMode(mode), Group: o.socketGroup}
	if opts.Ready, err = gateway.ParseReadiness(o.readyRequires); err != nil {
		return opts, exit.UsageError("--ready-requires " + err.Error())
	}
	if opts.AdminPolicy, err = absolute(o.policy); err != nil {
		return opts, err
	}
	if o.adminTCP == "" && o.cert+o.key+o.clientCA+o.clientCRL+strings.Join(o.clientNames, "") != "" {
		return opts, exit.UsageError("--admin-tls-cert, --admin-tls-key, --admin-client-ca, --admin-client-crl and --admin-client-name require --admin-tcp")
	}
	if o.adminTCP != "" {
		if o.cert == "" || o.key == "" || o.clientCA == "" {
			return opts, exit.UsageError("--admin-tcp needs --admin-tls-cert, --admin-tls-key and --admin-client-ca: the admin service is never served over TCP without mutual TLS")
		}
		opts.AdminTCP = &admin.TCPOptions{Address: o.adminTCP, CertFile: o.cert, KeyFile: o.key, ClientCAFile: o.clientCA, ClientCRLFile: o.clientCRL, ClientNames: o.clientNames}
	}
	if err := o.confine.Check(); err != nil {
		return opts, err
	}
	if err := o.recordTo(&opts.AccessLog, c); err != nil {
		return opts, err
	}
	opts.AuditLog.Required = o.auditRequired
	if opts.AuditLog.File, err = absolute(o.auditLog); err != nil {
		return opts, err
	}
	if o.config == "-" {
		return opts, exit.UsageError("--config must be a file: it is read again on SIGHUP")
	}
	if o.config, err = absolute(o.config); err != nil {
		return opts, err
	}
	opts.SealKey, err = files.Await(context.Background(), opts.Logger, "seal key", func() (*seal.Key, error) { return datadir.Key(c.Env, *o.sealKey) })
	if err != nil {
		return opts, err
	}
	if opts.Fleet, err = o.fleet.Options(o.config, opts.SealKey != nil, o.history); err != nil {
		return opts, err
	}
	opts.FileRoots, err = files.Await(context.Background(), opts.Logger, "file roots", o.roots)
	return opts, err
}

// recordTo checks the flags of the access log and sets its options.
func (o *serveOptions) recordTo(to *gateway.AccessLog, c *cli) error {
	switch o.accessLogFormat {
	case "json":
	case "text":
		to.Text = true
	default:
		return exit.UsageError(fmt.Sprintf("--access-log-format %q: must be json or text", o.accessLogFormat))
	}
	switch o.accessLog {
	case "":
	case "stdout", "-":
		to.Output = c.Out
	default:
		var err error
		to.File, err = absolute(o.accessLog)
		return err
	}
	return nil
}

// absolute returns the absolute form of a path, or "" for "". The working directory may
// change before a signal makes the gateway read or open the file again.
func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}

// reopenLogs handles SIGUSR1. It logs errors.
func (o *serveOptions) reopenLogs(ctx context.Context, gw *gateway.Gateway, opts gateway.Options) {
	file := o.accessLog
	if opts.AccessLog.File == "" { // the log goes to standard output, or there is no log
		file = ""
	}
	reopenLog(ctx, opts.Logger, "access log", file, gw.ReopenAccessLog)
	if file := opts.AuditLog.File; file != "" {
		reopenLog(ctx, opts.Logger, "audit log", file, gw.ReopenAuditLog)
	}
}

func reopenLog(ctx context.Context, log hclog.Logger, name, file string, reopen func(context.Context) error) {
	switch err := reopen(ctx); {
	case ctx.Err() != nil: // the gateway is shutting down
	case err != nil:
		log.Error("SIGUSR1: cannot reopen the "+name+"; keeping the current file", "error", err)
	case file == "":
		log.Info("SIGUSR1: the " + name + " is not written to a file")
	default:
		log.Info("SIGUSR1: "+name+" reopened", "file", file)
	}
}

// reload handles SIGHUP. It logs errors.
func reload(ctx context.Context, gw *gateway.Gateway, config string, log hclog.Logger) {
	gw.Reloading()
	gw.Reloaded(tryReload(ctx, gw, config, log))
}

func tryReload(ctx context.Context, gw *gateway.Gateway, config string, log hclog.Logger) error {
	gw.ReloadAdmin(ctx)
	var err error
	if config == "" {
		_, err = gw.Reload(ctx)
		err = exit.ApplyError(err, func(path string) string { return path })
	} else if m, loadErr := configfile.Load(ctx, config, log); loadErr != nil {
		err = loadErr
	} else {
		err = configfile.Apply(ctx, gw, m, "SIGHUP", log)
	}
	if err == nil {
		log.Info("SIGHUP: configuration and files reloaded", "revision", gw.State().Revision())
		return nil
	}
	f := exit.AsError(err)
	for _, fault := range f.Faults {
		log.Error("SIGHUP: fault", "error", fault)
	}
	log.Error("SIGHUP: reload failed; keeping the current configuration", "error", f.Summary)
	return errors.New(f.Summary)
}
