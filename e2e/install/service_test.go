package install

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// systemctl replaces the command of systemd in a root. It controls only our service,
// and finds its process in /run/drawbridge/pid.
const systemctl = `#!/bin/sh
echo "$@" >> /systemctl.log
pid=$(cat /run/drawbridge/pid 2>/dev/null)
case "$*" in
is-active*) [ -n "$pid" ] && kill -0 "$pid" ;;
stop*)
	[ -z "$pid" ] || kill -TERM "$pid"
	while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
	;;
kill*USR1*) kill -USR1 "$pid" ;;
esac
`

// manageServices makes the root look as if systemd ran in it.
func (r *root) manageServices() {
	r.write("/usr/bin/systemctl", systemctl, 0o755)
	if err := os.MkdirAll(r.path("/run/systemd/system"), 0o755); err != nil {
		r.t.Fatal(err)
	}
}

// A service is an installed gateway that runs in a root with the settings of
// its unit.
type service struct {
	*root
	listener string // address of the listener "web"
}

const webManifest = `kind: Listener
name: web
address: 127.0.0.1:0
protocol: PROTOCOL_HTTP
---
kind: Route
name: hello
listeners: [web]
respond: {body: hello}
`

// serve starts the gateway with the settings of the installed unit, the directories that
// systemd would make, and both logs. It replaces the port of --ops, which may be in use
// on this machine.
func (r *root) serve() *service {
	r.t.Helper()
	unit := r.read("/usr/lib/systemd/system/drawbridge.service")
	m := regexp.MustCompile(`(?m)^ExecStart=(/usr/bin/drawbridge serve .*)$`).FindStringSubmatch(unit)
	if m == nil {
		r.t.Fatalf("the unit does not start /usr/bin/drawbridge:\n%s", unit)
	}
	line := strings.Replace(m[1], "--ops 127.0.0.1:9090", "--ops 127.0.0.1:0", 1)
	r.run("install", "-d", "-m", "0755", "-o", "drawbridge", "-g", "drawbridge", "/run/drawbridge")
	args := append([]string{"setpriv", "--reuid=drawbridge", "--regid=drawbridge", "--clear-groups"}, strings.Fields(line)...)
	cmd := r.cmd(append(args, "--pid-file", "/run/drawbridge/pid", "--drain-timeout", "1m",
		"--access-log", "/var/log/drawbridge/access.log", "--audit-log", "/var/log/drawbridge/audit.log")...)
	log, err := os.CreateTemp(r.t.TempDir(), "log")
	if err != nil {
		r.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	r.t.Cleanup(func() {
		_ = r.cmd("sh", "-c", "[ ! -e /run/drawbridge/pid ] || kill -KILL $(cat /run/drawbridge/pid)").Run()
		_ = cmd.Process.Kill()
		<-exited
		if r.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			r.t.Logf("the gateway's log:\n%s", text)
		}
		log.Close()
	})
	s := &service{root: r}
	eventually(r.t, "the gateway answers", func() bool { return r.cmd("drawbridge", "status").Run() == nil })
	return s
}

// apply applies webManifest and finds the listener.
func (s *service) apply() {
	s.t.Helper()
	s.write("/tmp/web.yaml", webManifest, 0o644)
	s.run("drawbridge", "apply", "-f", "/tmp/web.yaml")
	s.find()
}

// find sets the address of the listener.
func (s *service) find() {
	s.t.Helper()
	status := s.run("drawbridge", "status", "-o", "json")
	m := regexp.MustCompile(`"boundAddress":\s*"([^"]+)"`).FindStringSubmatch(status)
	if m == nil {
		s.t.Fatalf("no listener is bound:\n%s", status)
	}
	s.listener = m[1]
}

// version returns the version of the running gateway.
func (s *service) version() string {
	s.t.Helper()
	m := regexp.MustCompile(`"version":\s*"([^"]+)"`).FindStringSubmatch(s.run("drawbridge", "status", "-o", "json"))
	if m == nil {
		s.t.Fatal("the status has no version")
	}
	return m[1]
}

// get sends a request to the listener on a new connection.
func (s *service) get() error {
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: testTimeout}).Get("http://" + s.listener + "/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != "hello" {
		err = fmt.Errorf("%s %q", resp.Status, body)
	}
	return err
}

// unnoticed calls f while clients connect continuously. Each of them must get
// an answer.
func (s *service) unnoticed(what string, f func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	var clients sync.WaitGroup
	var failed error
	answered := 0
	clients.Go(func() {
		for ctx.Err() == nil && failed == nil {
			failed = s.get()
			answered++
		}
	})
	f()
	cancel()
	clients.Wait()
	if failed != nil || answered < 2 {
		s.t.Errorf("%s: after %d answers: %v", what, answered, failed)
	}
}

// later is the version of the packages to upgrade to.
const later = "99.0.0"

// makeBinary builds the release binary for this machine from a source tree, with
// additional variables for make.
func makeBinary(t testing.TB, source string, variables ...string) string {
	t.Helper()
	deb, _ := architecture(t)
	dir := t.TempDir()
	binary := filepath.Join(dir, "drawbridge-linux-"+deb)
	cmd := exec.Command("make", append([]string{"--no-print-directory", "-C", source, "RELEASE=" + dir, binary}, variables...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MAKE") })
	runCmd(t, cmd)
	return binary
}

// build builds a package.
func build(t testing.TB, packager, version, binary string) string {
	t.Helper()
	dir := t.TempDir()
	return buildIn(t, "../..", dir, packager, version, binary)
}

func buildIn(t testing.TB, source, target, packager, version, binary string) string {
	t.Helper()
	deb, _ := architecture(t)
	cmd := exec.Command(made(t, "NFPM"), "package", "--config", "deploy/packages/nfpm.yaml", "--packager", packager, "--target", target)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "PACKAGE_ARCH="+deb, "PACKAGE_VERSION="+version, "PACKAGE_BINARY="+binary)
	out := runCmd(t, cmd)
	_, path, ok := strings.Cut(out, "created package: ")
	if !ok {
		t.Fatal(out)
	}
	return strings.TrimSpace(path)
}
