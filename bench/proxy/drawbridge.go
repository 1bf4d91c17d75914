package proxy

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bench/child"
	"github.com/drawbridge-gateway/drawbridge/bench/keys"
)

// Drawbridge is a drawbridge binary with default settings.
type Drawbridge struct {
	// Label is its name in reports; Path is the binary.
	Label, Path string
	// Profiled makes it serve CPU profiles on Running.Ops.
	Profiled bool
}

// Name implements Kind.
func (d Drawbridge) Name() string { return d.Label }

// Version implements Kind.
func (d Drawbridge) Version(ctx context.Context) (string, error) {
	out, err := output(ctx, d.Path, "version")
	return firstLine(out), err
}

// Unsupported implements Kind.
func (Drawbridge) Unsupported(Service) string { return "" }

func (d Drawbridge) command(w work) (command, error) {
	path, err := filepath.Abs(d.Path)
	if err != nil {
		return command{}, err
	}
	conf, err := w.file("drawbridge.yaml", drawbridgeConfig(w))
	if err != nil {
		return command{}, err
	}
	c := command{path: path, args: []string{
		"serve", "--data-dir", filepath.Join(w.dir, "data"), "--config", conf,
		"--file-root", filepath.Dir(w.keys.CA), "--log-level", "warn", "--drain-timeout", "1s",
	}}
	if d.Profiled {
		if c.ops, err = child.FreeAddress(); err != nil {
			return command{}, err
		}
		c.args = append(c.args, "--ops", c.ops)
	}
	return c, nil
}

func drawbridgeConfig(w work) string {
	var listener, tls, pool strings.Builder
	protocol := "TCP"
	if w.service.HTTP {
		protocol = "HTTP"
	}
	if w.service.ListenTLS {
		listener.WriteString("\ntls: {certificates: [listener]}")
	}
	if w.service.NoResumption {
		tls.WriteString(", sessionReuse: false")
	}
	if w.service.Postgres {
		tls.WriteString(", starttls: STARTTLS_POSTGRES")
	}
	if w.service.Warm > 0 {
		fmt.Fprintf(&pool, "\npool: {warm: %d}", w.service.Warm)
	}
	return fmt.Sprintf(`kind: TrustBundle
name: bench
file: %s
---
kind: Certificate
name: client
files: {certificatePath: %s, privateKeyPath: %s}
---
kind: Certificate
name: listener
files: {certificatePath: %s, privateKeyPath: %s}
---
kind: Upstream
name: backend
endpoints: [{address: "%s"}]
tls: {certificate: client, trustBundles: [bench], serverName: %s%s}%s
---
kind: Listener
name: bench
address: %s
protocol: %s
upstream: backend%s
`, w.keys.CA, w.keys.Client.Chain, w.keys.Client.Key, w.keys.Listener.Chain, w.keys.Listener.Key,
		w.backend, keys.BackendName, tls.String(), pool.String(), w.listen, protocol, listener.String())
}
