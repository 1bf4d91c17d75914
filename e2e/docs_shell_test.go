// Every shell command in the pages of docs has the shown result. The test runs
// the commands of each page in order against the built binary. A list has the
// commands that cannot run here, with the reasons.

package e2e

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"

	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A shellPage describes how to run the commands of a page.
type shellPage struct {
	// setup prepares what the page assumes: a gateway, files, servers.
	setup func(*shellRun)

	// notRun holds the beginnings of commands that the test does not run, with the
	// reasons.
	notRun map[string]string

	// codes holds the beginnings of commands whose exit code is not 0, with the
	// codes.
	codes map[string]int

	// again holds the beginnings of commands that run again until they succeed, because a
	// server may time out on a busy machine.
	again []string

	// exact means that the command prints every line of the shown output.
	// Otherwise it prints at least the headings of tables.
	exact bool
}

var shellPages = map[string]shellPage{
	"getting-started.md": {
		setup: func(r *shellRun) {
			page := r.page
			_, config, _ := strings.Cut(page, "```yaml\n")
			config, _, _ = strings.Cut(config, "```")
			address := serveHTTPS(r.t, lateConfig(filepath.Join(r.dir, "pki/backend.pem"), filepath.Join(r.dir, "pki/backend-key.pem")), respondsWith("backend"))
			listen := ownHost().String() + ":8080"
			r.replace("127.0.0.1:8080", listen)
			need(r.t, "curl")
			r.write("bridge.yaml", strings.NewReplacer("127.0.0.1:8080", listen, "backend.internal:443", address, "trustBundles: [corp]", "trustBundles: [corp], serverName: backend.internal").Replace(config))
		},
		notRun: map[string]string{
			"make build": "builds the program under test",
			"install":    "needs root",
		},
	},
	"admin-service.md": {
		setup: func(r *shellRun) {
			g := r.gateway()
			a := newAuthority(r.t)
			host := ownHost()
			server := issue(r.t, a.ca, pki.LeafOptions{CommonName: "admin", IPs: []net.IP{host}, Usage: pki.Server})
			for name, data := range map[string][]byte{
				"server.pem": server.ChainPEM, "server-key.pem": server.KeyPEM, "admins-ca.pem": a.ca.RootPEM(), "ca.pem": a.ca.RootPEM(),
				"alice.pem": a.client.ChainPEM, "alice-key.pem": a.client.KeyPEM,
			} {
				r.write(name, string(data))
			}
			r.replace("/var/lib/drawbridge/admin.sock", g.socket)
			r.replace("10.0.0.5", host.String())
		},
	},
	"audit-log.md": {
		setup: func(r *shellRun) {
			r.gateway()
			r.replace("/var/log/drawbridge/audit.log", filepath.Join(r.dir, "audit.log"))
		},
		notRun: map[string]string{"systemctl kill": "is part of logrotate's configuration"},
	},
	"access-log.md": {notRun: map[string]string{"systemctl kill": "is part of logrotate's configuration"}},
	"automation.md": {
		setup: func(r *shellRun) {
			g, a := r.gateway(), newAuthority(r.t)
			g.apply(trustBundle("ca", a.ca), certificate("client", a.client))
			address := serveHTTPS(r.t, a.serverConfig(r.t), respondsWith("payments"))
			r.write("payments.yaml", fmt.Sprintf("kind: Upstream\nname: payments\nendpoints: [{address: %q}]\ntls: {certificate: client, trustBundles: [ca], serverName: %s}\n", address, serverName))
			r.write("team-a/upstreams.yaml", "kind: Upstream\nname: a\nlabels: {team: a}\nendpoints: [{address: 127.0.0.1:1}]\nplaintext: {}\n")
		},
		notRun: map[string]string{"go get": "needs the network, and a release"},
	},
	"balancing.md": {
		setup: func(r *shellRun) {
			r.gateway()
			r.apply("kind: Upstream\nname: raw\ndns: {hostname: localhost, port: 1}\nplaintext: {}\n")
		},
	},
	"certificates.md": {
		setup: func(r *shellRun) {
			g, a := r.gateway(), newAuthority(r.t)
			g.apply(withCRLs(trustBundle("corp", a.ca), crl(r.t, a.ca)), certificate("archive", a.client), upstream("backend", a.settings(), "127.0.0.1:1"), trustBundle("ca", a.ca), certificate("client", a.client))
		},
	},
	"changing-safely.md": {
		setup: func(r *shellRun) {
			g := r.gateway()
			config := "kind: Upstream\nname: payments\nendpoints: [{address: 10.0.0.7:443}]\ntls: {verifyDepth: 2}\n---\n" +
				"kind: Listener\nname: payments\naddress: 127.0.0.1:0\nprotocol: HTTP\nupstream: payments\n"
			r.apply(config, "--comment", "payments over TLS")
			moved := strings.NewReplacer("10.0.0.7", "10.0.0.8", "verifyDepth: 2", "verifyDepth: 0").Replace(config)
			r.apply(moved, "--comment", "new data center")
			r.write("payments.yaml", moved)
			r.write("other.yaml", "kind: Upstream\nname: other\nendpoints: [{address: 10.0.0.9:443}]\n")
			for range 3 { // idle clients
				conn, err := net.Dial("tcp", g.address("payments"))
				if err != nil {
					r.t.Fatal(err)
				}
				r.t.Cleanup(func() { conn.Close() })
			}
			eventually(r.t, "the clients are connected", func() bool { return g.getStatus().GetListeners()[0].GetConnections() == 3 })
		},
		codes: map[string]int{"drawbridge diff": 1, "drawbridge apply -f other.yaml": 5},
		exact: true,
	},
	"client-certificates.md": {
		setup: func(r *shellRun) {
			g, a := r.gateway(), newAuthority(r.t)
			g.apply(trustBundle("partners", a.ca), certificate("shop", a.server), certificate("partners", a.server))
			r.apply("kind: Upstream\nname: shop\nendpoints: [{address: 127.0.0.1:1}]\nplaintext: {}\n---\nkind: Listener\nname: web\naddress: 127.0.0.1:0\nprotocol: HTTP\nupstream: shop\n" +
				"tls:\n  certificates: [shop]\n  policies:\n  - {hosts: [partners.example.com], certificates: [partners], clientAuth: REQUIRED, clientTrustBundles: [partners]}\n")
		},
		codes: map[string]int{"drawbridge explain web --sni": 1},
	},
	"connections.md": {
		setup: func(r *shellRun) {
			g, a := r.gateway(), newAuthority(r.t)
			address := serveConns(r.t, a.serverConfig(r.t), echo)
			u := upstream("db", a.settings(), address)
			u.Pool = &adminv1.Pool{Warm: 1}
			g.apply(trustBundle("ca", a.ca), certificate("client", a.client), u, listener("db", protocolTCP, "db"))
		},
	},
	"deployment.md": {notRun: map[string]string{"": "needs root and systemd; TestSystemdUnit tests the unit"}},
	"egress.md": {
		setup: func(r *shellRun) {
			r.gateway()
			proxy := serveConns(r.t, nil, func(c net.Conn) {
				if _, err := bufio.NewReader(c).ReadString('\n'); err == nil {
					_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
				}
				_, _ = io.Copy(io.Discard, c)
			})
			r.apply("kind: Upstream\nname: payments\nendpoints: [{address: \"payments.partner.example:443\"}]\nvia: {httpConnect: {address: \"" + proxy + "\", credentials: {username: gateway, password: x}}}\n")
		},
		codes: map[string]int{"drawbridge probe": 1},
	},
	"live-connections.md": {
		setup: func(r *shellRun) {
			g, a := r.gateway(), newAuthority(r.t)
			g.apply(trustBundle("ca", a.ca), certificate("client", a.client), upstream("db", a.settings(), serveConns(r.t, a.serverConfig(r.t), echo)), listener("db", protocolTCP, "db"))
			if err := pingPong(dial(r.t, g.address("db")), "hello"); err != nil {
				r.t.Fatal(err)
			}
		},
		notRun: map[string]string{"drawbridge top --count 1": "prints the version and the time; TestConnectionsAreListedAndClosedFromTheCommandLine runs it"},
	},
	"nginx.md":       {notRun: map[string]string{"": "TestCertificateCommandsOfTheNginxPage runs them"}},
	"packages.md":    {notRun: map[string]string{"": "needs root and a machine to install on; e2e/install tests the packages"}},
	"performance.md": {notRun: map[string]string{"go test": "a benchmark of a minute, whose figures depend on the machine"}},
	"roles.md": {
		setup: func(r *shellRun) {
			g := r.gateway()
			_, policy, _ := strings.Cut(r.page, "```yaml\n")
			policy, _, _ = strings.Cut(policy, "```")
			r.write("policy.yaml", policy)
			r.replace("/etc/drawbridge/policy.yaml", filepath.Join(r.dir, "policy.yaml"))
			r.replace("/var/lib/drawbridge/admin.sock", g.socket)
		},
	},
	"rotation.md": {notRun: map[string]string{"drawbridge drain": "needs connections made with two certificates; TestDrainConnections makes them"}},
	"sealing.md": {
		setup: func(r *shellRun) {
			g, a := r.gateway(), newAuthority(r.t)
			g.apply(certificate("client", a.client))
			g.apply(plainUpstream("payments", "10.0.0.7:80"))
			g.stop()
			r.replace("/var/lib/drawbridge", g.dir)
			r.replace("/var/lib/new", filepath.Join(shortDir(r.t), "new"))
			r.replace("/etc/drawbridge", r.dir)
		},
		notRun: map[string]string{"systemd-run": "needs systemd", "drawbridge serve --data-dir /var/lib/drawbridge": "fails, as TestAStateIsSealedAndRekeyed tests"},
		exact:  true,
	},
	"fleet.md": {
		setup: func(r *shellRun) {
			r.gateway()
			r.write("payments.yaml", "kind: Upstream\nname: payments\nendpoints: [{address: 127.0.0.1:1}]\nplaintext: {}\n")
		},
		notRun: map[string]string{
			"drawbridge serve":                             "needs an etcd cluster with TLS; cmd/drawbridge and gateway test it",
			"drawbridge gateways":                          "needs a fleet; gateway tests it",
			"drawbridge apply -f payments.yaml --wait-for": "needs a fleet; gateway tests it",
			"drawbridge apply -f payments.yaml --canaries": "needs a fleet; gateway tests it",
			"drawbridge store migrate":                     "needs etcd with TLS; TestAGatewayMovesToAFleetAndBack runs it",
			"make fleet-demo":                              "TestTheFleetDemo runs it",
			"install":                                      "needs root; TestAGatewayWithTheDropInJoinsTheFleet uses the file",
			"systemctl":                                    "needs root and systemd",
		},
	},
	// The database of its etcd is full at first, so that the commands must make room for the
	// gateway's write.
	"fleet-operations.md": {setup: func(r *shellRun) {
		need(r.t, "etcdctl")
		need(r.t, "jq")
		a := newAuthority(r.t)
		c := startEtcd(r.t, a, 3, "--quota-backend-bytes", "8000000", "--strict-reconfig-check=false") // else members are not removed in their first seconds
		r.gateway(c.flags()...)
		for name, data := range map[string][]byte{"etcd-ca.pem": a.ca.RootPEM(), "admin.pem": a.client.ChainPEM, "admin-key.pem": a.client.KeyPEM} {
			r.write(name, string(data))
		}
		r.replace("https://etcd-1:2379,https://etcd-2:2379,https://etcd-3:2379", strings.Join(c.clients, ","))
		r.replace("https://etcd-1:2379", c.clients[0])
		for i, peer := range c.peers {
			r.replace(fmt.Sprintf("https://etcd-%d:2380", i+1), peer)
		}
		r.write("payments.yaml", "kind: Upstream\nname: payments\nendpoints: [{address: 127.0.0.1:1}]\nplaintext: {}\n")
		c.fill(r.t)
		c.lead(r.t, "etcd-1") // the page removes etcd-2
		eventually(r.t, "a write is refused because the quota is used up", func() bool {
			code, out := r.bash("drawbridge apply -f payments.yaml")
			return code == 6 && strings.Contains(out, "database space exceeded")
		})
		r.env = append(r.env, "ETCDCTL_DIAL_TIMEOUT="+testTimeout.String())
	}, again: []string{"etcdctl endpoint", "etcdctl alarm", "etcdctl defrag", "drawbridge apply"}},
	"starttls.md": {
		setup: func(r *shellRun) {
			r.gateway()
			address := serveConns(r.t, nil, func(c net.Conn) {
				if _, err := io.ReadFull(c, make([]byte, 8)); err == nil { // SSLRequest
					_, _ = io.WriteString(c, "N")
				}
			})
			r.apply(fmt.Sprintf("kind: Upstream\nname: orders-db\nendpoints: [{address: %q}]\ntls: {starttls: POSTGRES}\n", address))
		},
		codes: map[string]int{"drawbridge probe": 1},
	},
	"upgrades.md": {notRun: map[string]string{
		"systemctl restart":  "needs root and systemd; TestARestartBySystemdRefusesNoClient acts as systemd",
		"drawbridge upgrade": "would end the gateway that the tests of pages share; TestUpgradesAreNotNoticed runs it",
		"drawbridge serve":   "needs the directory /opt; TestAProgramOfAConfinedGatewayReadsNoOtherFile uses the flag",
	}},
	"verification.md": {
		setup: func(r *shellRun) {
			g, a := r.gateway(), newAuthority(r.t)
			g.apply(trustBundle("ca", a.ca), certificate("client", a.client))
			address := serveHTTPS(r.t, a.serverConfig(r.t), respondsWith("pay"))
			r.replace("127.0.0.1:9443", address)
			r.write("pay.yaml", fmt.Sprintf("kind: Upstream\nname: backend\nendpoints: [{address: %q}]\ntls: {certificate: client, trustBundles: [ca], verifyName: pay.internal}\n", address))
		},
		codes: map[string]int{"drawbridge apply": 5},
		exact: true,
	},
}

// ownHost returns a loopback address that no other test uses, so that the commands
// can use the ports on the page.
func ownHost() net.IP {
	pid := os.Getpid()
	return net.IPv4(127, byte(64+pid>>16&63), byte(pid>>8), byte(pid))
}

// lateConfig presents a certificate whose files do not exist yet.
func lateConfig(certFile, keyFile string) *tls.Config {
	return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		return &pair, err
	}}
}

func TestShellCommandsOfThePages(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	unused := maps.Clone(shellPages)
	ran := 0
	for _, path := range pages {
		name := filepath.Base(path)
		page := readPage(t, path)
		commands := shellCommands(page)
		if len(commands) == 0 {
			continue
		}
		how, ok := shellPages[name]
		if !ok {
			t.Errorf("%s shows %q: add the page to shellPages", name, commands[0].text)
			continue
		}
		delete(unused, name)
		t.Run(name, func(t *testing.T) {
			r := &shellRun{t: t, page: page, dir: shortDir(t), how: how, notRun: maps.Clone(how.notRun)}
			r.env = append(os.Environ(), "PATH="+r.programs()+string(os.PathListSeparator)+os.Getenv("PATH"))
			if how.setup != nil {
				how.setup(r)
			}
			for _, c := range commands {
				if r.run(c) {
					ran++
				}
			}
			for command := range r.notRun {
				t.Errorf("the page does not show %q: remove it from shellPages", command)
			}
		})
	}
	for name := range unused {
		t.Errorf("%s shows no shell command: remove it from shellPages", name)
	}
	if ran < 20 && !t.Failed() {
		t.Errorf("only %d commands were run", ran)
	}
}

// A shellCommand is a command on a page, with its shown output.
type shellCommand struct {
	text   string
	output []string
}

var (
	// A line that begins with one of these programs is a command, except in a block
	// that marks its commands with "$ ".
	shellStart  = regexp.MustCompile(`^(\$ .*|(drawbridge|curl|grpcurl|openssl|make|install|useradd|systemctl|go|export|buf) .*)$`)
	shellPrompt = regexp.MustCompile(`(?m)^ *\$ `)
	codeBlock   = regexp.MustCompile("(?m)(?:^```sh.*\n(?:.*\n)*?```$)|(?:^ {4,}\\S.*\n(?:(?: {4,}.*)?\n)*)")
)

// shellCommands returns the commands in a page's blocks of code.
func shellCommands(page string) []shellCommand {
	var all []shellCommand
	for _, block := range codeBlock.FindAllString(page, -1) {
		block = strings.ReplaceAll(block, "\\\n", " ")
		inside, prompts := false, shellPrompt.MatchString(block)
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			switch {
			case strings.HasPrefix(line, "```"):
			case shellStart.MatchString(line) && (!prompts || strings.HasPrefix(line, "$ ")):
				all = append(all, shellCommand{text: strings.TrimPrefix(line, "$ ")})
				inside = true
			case line == "":
				inside = false
			case inside:
				last := &all[len(all)-1]
				last.output = append(last.output, line)
			}
		}
	}
	return all
}

// A shellRun runs the commands of one page in its own directory.
type shellRun struct {
	t        *testing.T
	page     string
	dir      string
	how      shellPage
	notRun   map[string]string // commands that the page has not shown yet
	env      []string
	replaced []string // old, new, old, new, …
	served   int
}

// programs returns a directory with the programs that the commands call.
func (r *shellRun) programs() string {
	bin := r.t.TempDir()
	for name, target := range map[string]string{"drawbridge": program(r.t), "grpcurl": grpcurlPath(r.t)} {
		if err := os.Symlink(target, filepath.Join(bin, name)); err != nil {
			r.t.Fatal(err)
		}
	}
	return bin
}

// gateway starts a gateway, and makes the commands use it.
func (r *shellRun) gateway(flags ...string) *gateway {
	g := startGateway(r.t, append([]string{"--file-root", r.dir}, flags...)...)
	r.env = append(r.env, "DRAWBRIDGE_ADMIN=unix:"+g.socket)
	return g
}

// replace makes the commands and their shown output use another value than the
// page.
func (r *shellRun) replace(old, by string) { r.replaced = append(r.replaced, old, by) }

func (r *shellRun) write(name, text string) {
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.t.Fatal(err)
	}
	writeFile(r.t, path, []byte(text))
}

// apply applies a configuration.
func (r *shellRun) apply(config string, flags ...string) {
	r.t.Helper()
	r.write("setup.yaml", config)
	cmd := exec.CommandContext(longContext(r.t), program(r.t), append([]string{"apply", "-f", "setup.yaml"}, flags...)...)
	cmd.Dir, cmd.Env = r.dir, r.env
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("setup: %v\n%s", err, out)
	}
}

// run runs a command, and reports whether it ran.
func (r *shellRun) run(c shellCommand) bool {
	t := r.t
	for beginning := range r.how.notRun {
		if strings.HasPrefix(c.text, beginning) {
			delete(r.notRun, beginning)
			return false
		}
	}
	by := strings.NewReplacer(r.replaced...)
	text := by.Replace(c.text)
	if value, ok := strings.CutPrefix(text, "export "); ok {
		r.env = append(r.env, value)
		return true
	}
	if strings.HasPrefix(text, "drawbridge serve ") {
		r.serve(text)
		return true
	}
	need(t, "bash")
	code, out := r.bash(text)
	if slices.ContainsFunc(r.how.again, func(beginning string) bool { return strings.HasPrefix(c.text, beginning) }) {
		pollUntil(func() bool {
			if code != 0 {
				code, out = r.bash(text)
			}
			return code == 0
		})
	}
	want := 0
	for beginning, code := range r.how.codes {
		if strings.HasPrefix(c.text, beginning) {
			want = code
		}
	}
	if code != want {
		t.Errorf("%s: exit code %d, want %d\n%s", text, code, want, out)
	}
	printed := normalized(out)
	for _, line := range c.output {
		line = normalized(by.Replace(line))
		if strings.Contains(line, "…") || !r.how.exact && line != strings.ToUpper(line) {
			continue
		}
		if !strings.Contains(printed, line) {
			t.Errorf("%s: the page shows\n%s\nand the output is\n%s", text, line, printed)
		}
	}
	return true
}

// bash runs a script, and returns its exit code and output.
func (r *shellRun) bash(script string) (int, string) {
	sh := exec.CommandContext(longContext(r.t), "bash", "-euc", script)
	sh.Dir, sh.Env = r.dir, r.env
	out, err := sh.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return sh.ProcessState.ExitCode(), string(out)
}

// serve starts a gateway with the page's command, and waits until it answers.
func (r *shellRun) serve(text string) {
	r.served++
	env := r.env
	if slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "DRAWBRIDGE_ADMIN=") }) && !strings.Contains(text, "--data-dir") {
		// This gateway runs beside the one from setup.
		data := filepath.Join(shortDir(r.t), "data")
		env = append(slices.Clone(env), "DRAWBRIDGE_DATA_DIR="+data, "DRAWBRIDGE_ADMIN=unix:"+data+"/admin.sock")
	}
	p := start(r.t, "env", append(append([]string{"-C", r.dir}, env...), "bash", "-c", "exec "+text)...)
	eventually(r.t, text+" is ready", func() bool {
		if p.done() {
			r.t.Fatalf("%s ended:\n%s", text, p.out)
		}
		return strings.Contains(p.out.String(), "gateway: ready")
	})
}

var (
	printedTime = regexp.MustCompile(`(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d`)
	printedUser = regexp.MustCompile(`uid:\d+`)
)

// normalized returns a text without the parts that vary between runs.
func normalized(s string) string {
	s = printedUser.ReplaceAllString(printedTime.ReplaceAllString(s, "TIME"), "uid:N")
	var lines []string
	for line := range strings.Lines(s) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}
