package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/confine"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/datadir"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/fleet"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/upgrade"
	"github.com/drawbridge-gateway/drawbridge/gateway"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	dataDir             string
	admin, adminTCP     string
	cert, key, clientCA string
	config              string
	fileRoots           []string
	ops, statsd         string
	readyRequires       []string
	socketMode          string
	socketGroup         string
	policy              string
	clientCRL           string
	clientNames         []string
	accessLog           string
	accessLogFormat     string
	auditLog            string
	auditRequired       bool
	logLevel, logFormat string
	drain               time.Duration
	history             int
	sealKey             *string
	pidFile             upgrade.PIDFile
	upgradeTimeout      time.Duration
	confine             *confine.Flags
	fleet               fleet.Flags
}

func (o *serveOptions) addFlags(c *cli, flags *pflag.FlagSet) {
	flags.StringVar(&o.dataDir, "data-dir", c.DefaultDataDir(), "`directory` of the gateway's state")
	o.sealKey = datadir.KeyFlag(flags)
	o.fleet.Add(flags)
	flags.StringVar(&o.admin, "admin", "", "unix:`PATH` of the admin service's socket, mode 0600 (default unix:DATA-DIR/admin.sock)")
	flags.StringVar(&o.adminTCP, "admin-tcp", "", "`address` to serve the admin service on over TCP too, with mutual TLS; needs the three files of --admin-tls-cert, --admin-tls-key and --admin-client-ca")
	flags.StringVar(&o.cert, "admin-tls-cert", "", "PEM `file` of the certificate to present on --admin-tcp")
	flags.StringVar(&o.key, "admin-tls-key", "", "PEM `file` of its private key")
	flags.StringVar(&o.clientCA, "admin-client-ca", "", "PEM `file` of the CA that clients' certificates must chain to")
	flags.StringVar(&o.config, "config", "", "`file` or directory to apply at start and on SIGHUP")
	flags.StringVar(&o.socketMode, "admin-socket-mode", "0600", "`mode` of the admin service's socket, in octal: every user who may write to it can administer the gateway")
	flags.StringVar(&o.socketGroup, "admin-socket-group", "", "`group` of the admin service's socket, by name or number (default: that of the process)")
	flags.StringVar(&o.policy, "admin-policy", "", "YAML `file` that gives callers of the admin service their roles: viewer, operator or admin; it is watched. Callers without a role may call nothing, except root and the user that runs the gateway, who are always admins (default: every caller is an admin)")
	flags.StringVar(&o.clientCRL, "admin-client-crl", "", "`file` of revocation lists of the CAs of --admin-client-ca")
	flags.StringArrayVar(&o.clientNames, "admin-client-name", nil, "subject alternative `name` that callers over TCP must have, such as DNS:ops.example or spiffe://example/ops; may be repeated, any of them is enough (default: any certificate of the CAs)")
	flags.StringArrayVar(&o.fileRoots, "file-root", nil, "`directory` below which files of certificates, trust bundles and revocation lists are read; may be repeated (default: the data directory, that of --config, /etc/drawbridge)")
	flags.StringVar(&o.ops, "ops", "", "`address` of /healthz, /readyz, /metrics and, on loopback, /debug/pprof")
	flags.StringSliceVar(&o.readyRequires, "ready-requires", []string{"restored"}, "what /readyz, the health service and GetStatus require, comma separated: restored (every stored listener is up or reported as down), listeners (every listener is up), revision (at least one revision was applied)")
	flags.StringVar(&o.statsd, "statsd", "", "UDP `address` to send metrics to")
	flags.StringVar(&o.accessLog, "access-log", "", "`file` to record requests and connections in, or stdout (also -) for standard output; its directory must exist (default: they are not recorded)")
	flags.StringVar(&o.accessLogFormat, "access-log-format", "json", "`format` of the records: json, or text, which begins like nginx's combined")
	flags.StringVar(&o.auditLog, "audit-log", "", "`file` to record writes, denied calls and probes in, with their callers; its directory must exist (default: they are not recorded)")
	flags.BoolVar(&o.auditRequired, "audit-required", true, "refuse writes that cannot be recorded in the audit log")
	flags.StringVar(&o.logLevel, "log-level", "info", "least severe `level` to log to standard error: trace, debug, info, warn, error or off")
	flags.StringVar(&o.logFormat, "log-format", "text", "`format` of the log: text or json")
	flags.IntVar(&o.history, "revision-history", 100, "maximum number of revisions that are stored for diff and rollback; all but the latest take at most 64 MiB")
	flags.DurationVar(&o.drain, "drain-timeout", 30*time.Second, "how long connections may stay open after a stop, or after their listener was removed")
	flags.StringVar((*string)(&o.pidFile), "pid-file", "", "`file` to write the process ID to; after an upgrade it has that of the new process")
	flags.DurationVar(&o.upgradeTimeout, "upgrade-timeout", time.Minute, "how long the new process of an upgrade may take until it serves")
	o.confine = confine.AddFlags(flags)
}

// paths returns the paths that the flags name or imply. The process can use no others, so
// a new flag for a file or a directory must be here too.
func (o *serveOptions) paths(c *cli, opts gateway.Options) confine.Paths {
	p := confine.Paths{
		DataDir: o.dataDir, FileRoots: slices.Clone(opts.FileRoots), AdminSocket: opts.AdminSocket, PIDFile: string(o.pidFile), Program: c.program.Path,
		Files: append(o.fleet.Files(), o.cert, o.key, o.clientCA, o.clientCRL, opts.AdminPolicy, *o.sealKey, o.config),
		Logs:  []string{opts.AccessLog.File, opts.AuditLog.File},
	}
	if entries, err := os.ReadDir(o.config); err == nil {
		p.Dirs = append(p.Dirs, o.config)
		for _, e := range entries {
			p.Files = append(p.Files, filepath.Join(o.config, e.Name())) // the entry may be a link
		}
	}
	return p
}

// roots returns the file roots, which must be directories if the flag names them.
func (o *serveOptions) roots() ([]string, error) {
	for _, dir := range o.fileRoots {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return nil, exit.UsageError(fmt.Sprintf("--file-root %q: must be a directory", dir))
		}
	}
	if len(o.fileRoots) > 0 {
		return o.fileRoots, nil
	}
	roots := []string{o.dataDir, "/etc/drawbridge"}
	if o.config == "" {
		return roots, nil
	}
	if info, err := os.Stat(o.config); err == nil && info.IsDir() {
		return append(roots, o.config), nil
	}
	return append(roots, filepath.Dir(o.config)), nil
}
