// Imports go downward only, and sibling packages do not import each other, as
// docs/architecture.md shows.

package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/drawbridge-gateway/drawbridge"

// mayImport lists, for each package, the packages of this module that it may
// import. A package that is not listed fails the test: add it first.
var mayImport = map[string][]string{
	"proto/drawbridge/admin/v1": {},

	"certs/safetext":  {},
	"certs/keyfile":   {"certs/safetext"},
	"certs/sharded":   {},
	"certs/tickets":   {},
	"certs":           {"certs/keyfile", "certs/safetext", "certs/sharded", "certs/tickets"},
	"certs/pki":       {},
	"certs/certstest": {"certs", "certs/pki"},

	"bridge/resolve/dnstest":   {},
	"bridge/alloctest":         {},
	"bridge/faulttest":         {},
	"bridge/logtest":           {},
	"bridge/socket/sockettest": {},
	"bridge/splice/splicetest": {},

	"bridge/cidr":        {},
	"bridge/route":       {"certs", "certs/sharded"},
	"bridge":             {},
	"bridge/socket":      {},
	"bridge/limit":       {},
	"bridge/live":        {"bridge/socket"},
	"bridge/proxyproto":  {"bridge/cidr"},
	"bridge/latency":     {},
	"bridge/starttls":    {"bridge/socket", "certs"},
	"bridge/egress":      {"bridge/resolve", "bridge/socket", "certs"},
	"bridge/accesslog":   {"certs"},
	"bridge/upstream":    {"bridge/egress", "bridge/latency", "bridge/proxyproto", "bridge/resolve", "bridge/socket", "bridge/starttls", "bridge/validity", "certs", "bridge/live"}, // its tests use a proxy
	"bridge/resolve":     {},
	"bridge/probe":       {"bridge/egress", "bridge/proxyproto", "bridge/resolve", "bridge/starttls", "certs", "certs/keyfile"},
	"bridge/health":      {"bridge/proxyproto", "bridge/upstream", "certs"}, // its tests read headers
	"bridge/splice":      {"bridge/socket", "certs"},
	"bridge/validity":    {"certs"},
	"bridge/clienthello": {},
	"bridge/intake":      {"bridge/cidr", "bridge/clienthello", "bridge/limit", "bridge/proxyproto", "bridge/socket", "bridge/validity", "certs", "bridge/live"},
	"bridge/l4": {"bridge/intake", "bridge/accesslog", "bridge/cidr", "bridge/clienthello", "bridge/latency", "bridge/limit", "bridge/proxyproto", "bridge/upstream", "bridge/route",
		"bridge/socket", "bridge/splice", "bridge/starttls", "bridge/validity", "certs", "bridge/live"},
	"bridge/l7": {"bridge/intake", "bridge/l7/backs", "bridge/l7/exchange", "bridge/l7/policy", "bridge/l7/wire", "bridge/l7/http1", "bridge/l7/http2", "bridge/l7/message", "bridge/accesslog", "bridge/latency",
		"bridge/cidr", "bridge/limit", "bridge/proxyproto", "bridge/upstream", "bridge/route", "bridge/socket", "bridge/splice", "bridge/validity", "certs", "bridge/live"},
	"bridge/l7/policy": {"bridge/l7/message", "bridge/cidr", "bridge/route", "bridge/upstream", "certs"},
	"bridge/l7/exchange": {"bridge/l7/policy", "bridge/l7/wire", "bridge/l7/http1", "bridge/l7/message",
		"bridge/accesslog", "bridge/socket", "bridge/splice", "bridge/upstream", "certs"},
	"bridge/l7/backs": {"bridge/l7/wire", "bridge/l7/http1", "bridge/l7/http2", "bridge/l7/message",
		"bridge/accesslog", "bridge/proxyproto", "bridge/upstream", "bridge/socket", "bridge/splice", "certs", "bridge/live"},
	"bridge/l7/wire":    {"bridge/l7/http1", "bridge/l7/message", "bridge/socket"},
	"bridge/l7/http1":   {"bridge/l7/message"},
	"bridge/l7/hpack":   {},
	"bridge/l7/http2":   {"bridge/l7/hpack", "bridge/l7/message", "bridge/socket"},
	"bridge/l7/message": {},

	"gateway/invalid":             {},
	"gateway/fileroot":            {},
	"gateway/history":             {},
	"gateway/confirm":             {},
	"gateway/ordered":             {},
	"gateway/wellformed":          {"gateway/invalid", "proto/drawbridge/admin/v1"}, // its tests
	"gateway/store":               {"gateway/invalid", "gateway/ordered", "proto/drawbridge/admin/v1"},
	"gateway/revisions":           {"gateway/store", "gateway/invalid", "proto/drawbridge/admin/v1"},
	"gateway/fielddiff":           {"gateway/store", "gateway/invalid", "proto/drawbridge/admin/v1"},
	"gateway/store/seal":          {},
	"gateway/store/bolt":          {"gateway/revisions", "gateway/store", "gateway/store/seal", "gateway/invalid", "proto/drawbridge/admin/v1"},
	"gateway/store/etcd":          {"gateway/revisions", "gateway/store", "gateway/store/seal", "gateway/invalid", "proto/drawbridge/admin/v1"}, // its tests draft edits
	"gateway/store/etcd/etcdtest": {"bridge/socket/sockettest"},
	"gateway/snapshot": {"gateway/store", "gateway/invalid", "gateway/ordered", "proto/drawbridge/admin/v1",
		"gateway/fileroot", "gateway/unixsocket", "gateway/wellformed", "bridge/cidr", "bridge/egress", "bridge/health", "bridge/limit", "bridge/proxyproto", "bridge/l4", "bridge/l7", "bridge/l7/backs", "bridge/l7/exchange", "bridge/l7/policy", "bridge/probe", "bridge/resolve", "bridge/upstream", "bridge/route", "bridge/socket", "bridge/starttls", "bridge/validity", "certs", "certs/tickets"},
	"gateway/guard":      {},
	"gateway/audit":      {},
	"gateway/access":     {"gateway/fileroot", "certs", "proto/drawbridge/admin/v1"},
	"gateway/unixsocket": {},
	"gateway/systemd":    {},
	"gateway/handover":   {"gateway/unixsocket"},
	"gateway/listeners": {"gateway/handover", "gateway/snapshot", "gateway/unixsocket", "bridge/accesslog", "bridge/l4", "bridge/l7", "bridge/limit", "bridge/socket", "bridge/splice", "bridge/validity",
		"proto/drawbridge/admin/v1", "bridge/live"},
	"gateway/livestate":   {"gateway/listeners", "gateway/snapshot", "bridge/limit", "bridge/upstream", "proto/drawbridge/admin/v1"},
	"gateway/admin":       {"gateway/access", "gateway/audit", "gateway/fielddiff", "gateway/fileroot", "gateway/revisions", "gateway/rollout", "gateway/guard", "gateway/history", "gateway/store", "gateway/invalid", "gateway/wellformed", "gateway/unixsocket", "certs", "proto/drawbridge/admin/v1"},
	"gateway/files":       {"gateway/fileroot", "gateway/invalid", "gateway/snapshot", "gateway/store", "proto/drawbridge/admin/v1"},
	"gateway/ops":         {"gateway/guard"},
	"gateway/connections": {"gateway/invalid", "gateway/snapshot", "bridge/live", "certs", "certs/safetext", "proto/drawbridge/admin/v1"},
	"gateway/inventory":   {"gateway/admin", "gateway/invalid", "gateway/snapshot", "gateway/store", "proto/drawbridge/admin/v1", "bridge/upstream", "certs"},
	"gateway/diagnose":    {"gateway/invalid", "gateway/snapshot", "gateway/store", "proto/drawbridge/admin/v1", "bridge/probe", "certs"},
	"gateway/telemetry": {"gateway/listeners", "gateway/snapshot", "gateway/store",
		"bridge/accesslog", "bridge/l4", "bridge/l7", "bridge/latency", "bridge/limit", "bridge/proxyproto", "bridge/upstream", "bridge/validity", "certs"},
	"gateway/rollout": {"gateway/store", "proto/drawbridge/admin/v1"},
	"gateway/fleet":   {"certs/tickets", "gateway/revisions", "gateway/rollout", "gateway/store", "gateway/store/bolt", "gateway/store/etcd", "gateway/invalid", "gateway/store/seal", "proto/drawbridge/admin/v1"}, // its tests open stores
	"gateway": {"certs/tickets", "gateway/fleet", "gateway/store/etcd", "gateway/access", "gateway/audit", "gateway/admin", "gateway/confirm", "gateway/diagnose", "gateway/files", "gateway/guard", "gateway/history", "gateway/inventory", "gateway/listeners", "gateway/ops", "gateway/revisions", "gateway/rollout",
		"gateway/handover", "gateway/livestate", "gateway/snapshot", "gateway/store", "gateway/store/bolt", "gateway/store/seal", "gateway/systemd", "gateway/telemetry", "gateway/unixsocket", "gateway/invalid", "gateway/fileroot",
		"proto/drawbridge/admin/v1", "bridge/accesslog", "bridge/upstream", "bridge/validity", "certs", "gateway/connections", "bridge/live"},

	"cmd/drawbridge": {"gateway", "gateway/admin", "gateway/files", "gateway/handover", "gateway/systemd", "gateway/unixsocket", "gateway/store", "gateway/store/seal", "proto/drawbridge/admin/v1", "certs",
		"cmd/drawbridge/ca", "cmd/drawbridge/client", "cmd/drawbridge/command", "cmd/drawbridge/configfile", "cmd/drawbridge/confine", "cmd/drawbridge/datadir", "cmd/drawbridge/demo", "cmd/drawbridge/exit", "cmd/drawbridge/format",
		"cmd/drawbridge/logwriter", "cmd/drawbridge/manifest", "cmd/drawbridge/memory", "cmd/drawbridge/terminal", "cmd/drawbridge/upgrade", "cmd/drawbridge/view", "cmd/drawbridge/connections", "cmd/drawbridge/fleet", "cmd/drawbridge/gateways", "cmd/drawbridge/top"},
	"cmd/drawbridge/confine":     {"cmd/drawbridge/exit", "gateway/files", "proto/drawbridge/admin/v1"},
	"cmd/drawbridge/fleet":       {"cmd/drawbridge/exit", "gateway", "gateway/store", "gateway/store/etcd"},
	"cmd/drawbridge/gateways":    {"cmd/drawbridge/client", "cmd/drawbridge/command", "cmd/drawbridge/exit", "cmd/drawbridge/format", "cmd/drawbridge/manifest", "cmd/drawbridge/terminal", "cmd/drawbridge/view", "proto/drawbridge/admin/v1"},
	"cmd/drawbridge/upgrade":     {"cmd/drawbridge/command", "cmd/drawbridge/exit", "gateway", "gateway/handover", "gateway/unixsocket"},
	"cmd/drawbridge/ca":          {"cmd/drawbridge/command", "cmd/drawbridge/exit", "cmd/drawbridge/terminal", "cmd/drawbridge/view", "certs", "certs/pki", "proto/drawbridge/admin/v1"},
	"cmd/drawbridge/client":      {"cmd/drawbridge/command", "cmd/drawbridge/exit", "cmd/drawbridge/manifest", "cmd/drawbridge/terminal", "gateway/store", "proto/drawbridge/admin/v1"},
	"cmd/drawbridge/command":     {"cmd/drawbridge/exit", "cmd/drawbridge/terminal"},
	"cmd/drawbridge/configfile":  {"cmd/drawbridge/exit", "cmd/drawbridge/manifest", "gateway", "gateway/files", "gateway/invalid", "gateway/store", "proto/drawbridge/admin/v1"},
	"cmd/drawbridge/connections": {"cmd/drawbridge/client", "cmd/drawbridge/command", "cmd/drawbridge/exit", "cmd/drawbridge/format", "cmd/drawbridge/terminal", "cmd/drawbridge/view", "proto/drawbridge/admin/v1"},
	"cmd/drawbridge/top":         {"cmd/drawbridge/client", "cmd/drawbridge/command", "cmd/drawbridge/exit", "cmd/drawbridge/format", "cmd/drawbridge/terminal", "cmd/drawbridge/view", "proto/drawbridge/admin/v1"},
	"cmd/drawbridge/datadir":     {"cmd/drawbridge/command", "cmd/drawbridge/exit", "cmd/drawbridge/fleet", "cmd/drawbridge/terminal", "gateway/fleet", "gateway/store/bolt", "gateway/store/etcd", "gateway/store/seal"},
	"cmd/drawbridge/demo":        {"cmd/drawbridge/command", "cmd/drawbridge/configfile", "cmd/drawbridge/exit", "cmd/drawbridge/manifest", "gateway", "certs/pki"},
	"cmd/drawbridge/exit":        {"cmd/drawbridge/manifest", "cmd/drawbridge/terminal", "cmd/drawbridge/view", "gateway/invalid", "proto/drawbridge/admin/v1"},
	"cmd/drawbridge/format":      {"cmd/drawbridge/manifest", "proto/drawbridge/admin/v1"}, // its tests write messages
	"cmd/drawbridge/logwriter":   {},
	"cmd/drawbridge/manifest":    {"proto/drawbridge/admin/v1"},
	"cmd/drawbridge/memory":      {},
	"cmd/drawbridge/terminal":    {},
	"cmd/drawbridge/view":        {"cmd/drawbridge/format", "cmd/drawbridge/manifest", "cmd/drawbridge/terminal", "gateway/store", "proto/drawbridge/admin/v1"}, // its tests wrap resources

	"e2e":         {"proto/drawbridge/admin/v1", "certs/pki", "gateway/store", "gateway/store/etcd", "gateway/store/seal"}, // the proofs of a fleet read etcd themselves
	"e2e/install": {"certs/pki"},

	"deploy/image":     {},
	"deploy/fleetdemo": {"certs/pki"},
}

// Libraries that only some packages may import. So packages below the admin
// service do not depend on gRPC, except for etcd's client, and only the store depends
// on its database.
// Keys are prefixes of import paths.
var onlyIn = map[string][]string{
	"google.golang.org/grpc":     {"proto/drawbridge/admin/v1", "gateway/admin", "gateway/store/etcd", "cmd/drawbridge", "cmd/drawbridge/client", "cmd/drawbridge/exit", "e2e"},
	"google.golang.org/genproto": {"gateway/admin", "cmd/drawbridge", "cmd/drawbridge/exit", "e2e"},
	"google.golang.org/protobuf": {"proto/drawbridge/admin/v1", "gateway", "gateway/access", "gateway/admin", "gateway/fielddiff", "gateway/revisions", "gateway/snapshot",
		"gateway/store", "gateway/store/bolt", "gateway/store/etcd", "gateway/fleet", "gateway/rollout", "cmd/drawbridge/gateways", "gateway/wellformed", "gateway/connections", "gateway/diagnose", "gateway/inventory", "cmd/drawbridge", "cmd/drawbridge/ca", "cmd/drawbridge/client", "cmd/drawbridge/format", "cmd/drawbridge/manifest", "cmd/drawbridge/view", "e2e", "cmd/drawbridge/connections", "cmd/drawbridge/top"},
	"go.etcd.io/bbolt":        {"gateway/store/bolt"},
	"go.etcd.io/etcd":         {"gateway/store/etcd", "gateway/store/etcd/etcdtest"},
	"go.uber.org/zap":         {"gateway/store/etcd", "gateway/store/etcd/etcdtest"},
	"github.com/spf13":        {"cmd/drawbridge", "cmd/drawbridge/ca", "cmd/drawbridge/client", "cmd/drawbridge/command", "cmd/drawbridge/datadir", "cmd/drawbridge/demo", "cmd/drawbridge/fleet", "cmd/drawbridge/gateways", "cmd/drawbridge/format", "cmd/drawbridge/upgrade", "cmd/drawbridge/connections", "cmd/drawbridge/top", "cmd/drawbridge/confine"},
	"github.com/landlock-lsm": {"cmd/drawbridge/confine"},
	"go.yaml.in/yaml":         {"cmd/drawbridge/manifest", "gateway/access"},
	"github.com/prometheus":   {"gateway/telemetry"},
	"testing":                 {"bridge/faulttest", "bridge/socket/sockettest", "certs/certstest", "bridge/resolve/dnstest", "bridge/alloctest", "bridge/splice/splicetest", "gateway/store/etcd/etcdtest"},
	"cmd/drawbridge/fleet":    {"cmd/drawbridge/exit", "gateway", "gateway/store/etcd"},
}

func TestImportsRunDownward(t *testing.T) {
	for _, p := range listPackages(t) {
		name, ok := ours(p.ImportPath)
		if !ok {
			continue
		}
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("package %s has no place in the import direction", name)
			continue
		}
		for _, path := range p.Imports {
			if imported, ok := ours(path); ok && !slices.Contains(allowed, imported) {
				t.Errorf("%s imports %s", name, imported)
			}
			if layers := confinedTo(path); layers != nil && !slices.Contains(layers, name) {
				t.Errorf("%s imports %s, which only %s may", name, path, strings.Join(layers, ", "))
			}
		}
		// Tests may also import the throw-away CAs and DNS servers, and
		// everything below the package they test, but nothing above it.
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			imported, ok := ours(path)
			if ok && imported != name && !slices.Contains(testHelpers, imported) && !slices.Contains(allowed, imported) {
				t.Errorf("the tests of %s import %s", name, imported)
			}
		}
	}
}

var testHelpers = []string{"bridge/alloctest", "bridge/faulttest", "bridge/logtest", "bridge/socket/sockettest", "certs/certstest", "certs/pki", "certs", "bridge/resolve", "bridge/resolve/dnstest", "bridge/splice/splicetest", "gateway/store/etcd/etcdtest"}

type listedPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func listPackages(t *testing.T) []listedPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []listedPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listedPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// ours reports whether path is a package of this module, and its path there.
func ours(path string) (string, bool) {
	return strings.CutPrefix(path, module+"/")
}

// confinedTo returns the only packages that may import path, or nil if all may.
func confinedTo(path string) []string {
	for prefix, layers := range onlyIn {
		if path == prefix || strings.HasPrefix(path, prefix+"/") {
			return layers
		}
	}
	return nil
}
