package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// patience bounds every wait of the demo.
const patience = 2 * time.Minute

// configuration is the configuration of the fleet: a listener on a port that each gateway's
// kernel chooses, and an upstream over mutual TLS. It contains the private key, so etcd
// stores the key, sealed.
const configuration = `kind: TrustBundle
name: demo-ca
pem: |
%s---
kind: Certificate
name: gateway
pem:
  certificateChain: |
%s  privateKey: |
%s---
kind: Listener
name: web
address: 127.0.0.1:0
protocol: HTTP
upstream: web
---
`

// upstream is the resource that the demo changes.
const upstream = `kind: Upstream
name: web
labels: {version: %q}
endpoints: [{address: %q}]
tls: {certificate: gateway, trustBundles: [demo-ca], serverName: web.demo.test}
`

// prepare writes the certificates, the seal key and the configuration, and starts the
// upstreams.
func (d *demo) prepare() error {
	ca, err := pki.Init(filepath.Join(d.dir, "pki"), pki.CAOptions{CommonName: "Fleet demo CA"}, nil)
	if err != nil {
		return err
	}
	d.host = ownHost()
	// A member checks that the certificate of another member contains the address from which
	// that member connects.
	addresses := []net.IP{net.ParseIP(d.host), net.IPv4(127, 0, 0, 1)}
	for name, o := range map[string]pki.LeafOptions{
		"etcd":    {IPs: addresses, Usage: pki.Both},
		"gateway": {CommonName: "gateway", Usage: pki.Client},
	} {
		if _, err := ca.IssueTo(filepath.Join(d.dir, "pki"), name, o); err != nil {
			return err
		}
	}
	client, err := ca.Issue(pki.LeafOptions{CommonName: "gateway", Usage: pki.Client})
	if err != nil {
		return err
	}
	if d.good, err = serve(ca, "web.demo.test", 200, "hello from the upstream"); err != nil {
		return err
	}
	if d.bad, err = serve(ca, "web.demo.test", 500, "this version is broken"); err != nil {
		return err
	}
	key := make([]byte, 32)
	rand.Read(key)
	for name, text := range map[string]string{
		"seal.key":      hex.EncodeToString(key) + "\n",
		"fleet.yaml":    fmt.Sprintf(configuration, indented(ca.RootPEM(), "  "), indented(client.ChainPEM, "    "), indented(client.KeyPEM, "    ")) + d.version("1", d.good),
		"two.yaml":      d.version("2", d.good),
		"three.yaml":    d.version("3", d.good),
		"broken.yaml":   d.version("4", d.bad),
		"repaired.yaml": d.version("5", d.good),
	} {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) version(v string, s *server) string { return fmt.Sprintf(upstream, v, s.address) }

func indented(pem []byte, by string) string {
	var b strings.Builder
	for line := range strings.Lines(string(pem)) {
		b.WriteString(by + line)
	}
	return b.String()
}

// ownHost returns a loopback address that no other program uses, so that a port which the
// kernel has chosen for a member of etcd stays free while the member is down.
func ownHost() string {
	host := fmt.Sprintf("127.%d.%d.%d", 1+mathrand.IntN(254), mathrand.IntN(256), 1+mathrand.IntN(254))
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "127.0.0.1"
	}
	l.Close()
	return host
}

// freePorts returns addresses on which nothing listens.
func freePorts(host string, n int) ([]string, error) {
	var out []string
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return nil, err
		}
		defer l.Close() // after all are chosen, so that they differ
		out = append(out, l.Addr().String())
	}
	return out, nil
}

// startEtcd starts three members that accept only clients and members with a certificate of
// the demo's CA.
func (d *demo) startEtcd() error {
	ports, err := freePorts(d.host, 6)
	if err != nil {
		return err
	}
	clients, peers := ports[:3], ports[3:]
	var cluster []string
	for i, peer := range peers {
		cluster = append(cluster, fmt.Sprintf("etcd-%d=https://%s", i+1, peer))
		d.endpoints = append(d.endpoints, "https://"+clients[i])
	}
	for i := range 3 {
		name, client, peer := fmt.Sprint("etcd-", i+1), "https://"+clients[i], "https://"+peers[i]
		m := &process{name: name, dir: d.dir, path: d.etcd, args: []string{
			"--name", name, "--data-dir", name, "--logger", "zap", "--log-level", "warn",
			"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-token", d.dir,
			"--client-cert-auth", "--trusted-ca-file", "pki/ca.pem", "--cert-file", "pki/etcd.pem", "--key-file", "pki/etcd-key.pem",
			"--peer-client-cert-auth", "--peer-trusted-ca-file", "pki/ca.pem", "--peer-cert-file", "pki/etcd.pem", "--peer-key-file", "pki/etcd-key.pem",
		}}
		d.members = append(d.members, m)
		if err := m.start(); err != nil {
			return err
		}
	}
	return nil
}

// startGateways starts gateways a, b and c, each with a label zone.
func (d *demo) startGateways(ctx context.Context) error {
	for _, id := range []string{"a", "b", "c"} {
		g := &process{name: "gateway-" + id, dir: d.dir, path: d.drawbridge, args: []string{
			"serve", "--data-dir", id, "--drain-timeout", "2s", "--log-level", "warn", "--store", "etcd", "--seal-key-file", "seal.key",
			"--etcd-endpoints", strings.Join(d.endpoints, ","), "--etcd-ca", "pki/ca.pem", "--etcd-cert", "pki/gateway.pem", "--etcd-key", "pki/gateway-key.pem",
			"--gateway-id", id, "--gateway-labels", "zone=" + id,
		}}
		d.gateways = append(d.gateways, g)
		if err := g.start(); err != nil {
			return err
		}
	}
	return d.await(ctx, "all gateways are connected to etcd", func() bool { return d.atHead(3) })
}

// output runs the program at a gateway, and returns what it prints.
func (d *demo) output(ctx context.Context, gateway string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.drawbridge, append(args, "--admin", admin(gateway))...)
	cmd.Dir = d.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func admin(gateway string) string { return "unix:" + gateway + "/admin.sock" }

// atHead reports whether a number of gateways are connected and run the latest revision.
func (d *demo) atHead(n int) bool {
	out, err := d.output(context.Background(), "a", "gateways", "-o", "json")
	if err != nil {
		return false
	}
	var list struct {
		HeadRevision string
		Gateways     []struct {
			Connected bool
			Revision  string
		}
	}
	if json.Unmarshal([]byte(out), &list) != nil {
		return false
	}
	for _, g := range list.Gateways {
		if g.Connected && g.Revision == list.HeadRevision {
			n--
		}
	}
	return n <= 0
}

// listener returns the address that a gateway's kernel chose for the listener.
func (d *demo) listener(ctx context.Context, gateway string) (string, error) {
	out, err := d.output(ctx, gateway, "status", "-o", "json")
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	var found struct {
		Status struct {
			Listeners []struct{ BoundAddress string }
		}
	}
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		return "", err
	}
	listeners := found.Status.Listeners
	if len(listeners) != 1 || listeners[0].BoundAddress == "" {
		return "", fmt.Errorf("gateway %s has no listener:\n%s", gateway, out)
	}
	return listeners[0].BoundAddress, nil
}

// await waits until ok returns true.
func (d *demo) await(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			return d.failure(fmt.Errorf("did not happen within %v: %s", patience, what))
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}
