// An upgrade replaces the process while clients connect: no client is refused, no request
// fails, and no acknowledged write is lost. If anything is wrong with the new process,
// the old one continues.

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// upgradable starts a gateway with a PID file, and serves streams.
func upgradable(t *testing.T, args ...string) *gateway {
	t.Helper()
	dir := shortDir(t)
	g := startGatewayOn(t, filepath.Join(dir, "data"), append([]string{"--pid-file", filepath.Join(dir, "pid"), "--drain-timeout", "1m"}, args...)...)
	t.Cleanup(func() { g.killReplaced() })
	return g
}

// pid returns the process ID in the PID file.
func (g *gateway) pid() int {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(g.dir), "pid"))
	if err != nil {
		g.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		g.t.Fatal(err)
	}
	return pid
}

// killReplaced kills the process that serves now, unless it is the first one, which
// the test harness ends.
func (g *gateway) killReplaced() {
	text, _ := os.ReadFile(filepath.Join(filepath.Dir(g.dir), "pid"))
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid != g.cmd.Process.Pid {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// upgrade upgrades the gateway, or fails the test. When it returns, the new process
// answers the calls to the admin service.
func (g *gateway) upgrade(args ...string) {
	g.t.Helper()
	before := g.getStatus().GetStartTime().AsTime()
	if r := g.tryUpgrade(args...); r.code != 0 || !strings.Contains(r.stdout, "has taken over") {
		g.t.Fatalf("upgrade: %v", r)
	}
	eventually(g.t, "the new process answers", func() bool {
		s, err := g.status.GetStatus(longContext(g.t), &adminv1.GetStatusRequest{})
		return err == nil && !s.GetStartTime().AsTime().Equal(before)
	})
}

func (g *gateway) tryUpgrade(args ...string) result {
	g.t.Helper()
	return command(g.t, program(g.t), append([]string{"upgrade", "--data-dir", g.dir}, args...)...)
}

func TestUpgradesAreNotNoticed(t *testing.T) {
	t.Parallel()
	times := often(t, "DRAWBRIDGE_UPGRADES", 24)
	g := upgradable(t, "--ops", "127.0.0.1:0")
	web := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "web")
		if r.URL.Path == "/stream" { // one byte again and again, for longer than an upgrade takes
			for range 20 {
				_ = http.NewResponseController(w).Flush()
				time.Sleep(25 * time.Millisecond) // limits the rate
				_, _ = io.WriteString(w, ".")
			}
		}
	})
	unix := listener("unix", protocolHTTP, "web")
	unix.Address = "unix:" + filepath.Join(shortDir(t), "web.sock")
	g.apply(plainUpstream("web", web), listener("web", protocolHTTP, "web"), listener("raw", protocolTCP, "web"), unix)
	address, socket := g.address("web"), strings.TrimPrefix(unix.GetAddress(), "unix:")

	load := startNewConnections(t, dialers(map[string]string{address: "tcp", g.address("raw"): "tcp", socket: "unix", g.socket: "unix-connect"}))
	streams := startStreams(t, address, 100)
	writes := g.startWrites()
	for range times {
		before := g.pid()
		g.upgrade()
		if now := g.pid(); now == before {
			t.Fatal("the PID file still names the old process")
		}
	}
	load.stop()
	streams.stop()
	writes.stop()
	t.Logf("%d upgrades, %d new connections, %d streams, %d acknowledged writes, %d refused because of an upgrade",
		times, load.served.Load(), streams.served.Load(), writes.acknowledged.Load(), writes.refused.Load())
	if load.served.Load() < int64(10*times) || streams.served.Load() == 0 || writes.acknowledged.Load() == 0 {
		t.Error("there was no load")
	}
	if got, want := g.getStatus().GetRevision(), writes.last.Load(); got < want {
		t.Errorf("revision %d is live, and %d was acknowledged", got, want)
	}
	if err := syscall.Kill(g.pid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last process removes its sockets and its PID file", func() bool {
		_, pidErr := os.Lstat(filepath.Join(filepath.Dir(g.dir), "pid"))
		_, err := os.Lstat(socket)
		_, adminErr := os.Lstat(g.socket)
		return errors.Is(err, os.ErrNotExist) && errors.Is(adminErr, os.ErrNotExist) && errors.Is(pidErr, os.ErrNotExist)
	})
	if left, _ := filepath.Glob(filepath.Join(g.dir, "*.sock")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(g.dir, "state.db.*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// often returns how often a test repeats something: the number in the variable, or else
// normally.
func often(t testing.TB, variable string, normally int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return normally
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// streams are clients of long responses.
type streams struct {
	served atomic.Int64
	end    context.CancelFunc
	all    sync.WaitGroup
}

func startStreams(t testing.TB, address string, count int) *streams {
	ctx, end := context.WithCancel(context.Background())
	s := &streams{end: end}
	for range count {
		s.all.Go(func() {
			for ctx.Err() == nil {
				if err := stream(address); err != nil {
					t.Errorf("a stream failed: %v", err)
					return
				}
				s.served.Add(1)
			}
		})
	}
	t.Cleanup(s.stop)
	return s
}

func stream(address string) error {
	conn, err := net.DialTimeout("tcp", address, testTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	fmt.Fprint(conn, "GET /stream HTTP/1.1\r\nHost: web.example\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	if err == nil && len(body) != len("web")+20 {
		err = fmt.Errorf("the body is %q", body)
	}
	return err
}

func (s *streams) stop() {
	s.end()
	s.all.Wait()
}

// writes makes writes, one after another.
type writes struct {
	acknowledged, refused, last atomic.Int64
	end                         context.CancelFunc
	all                         sync.WaitGroup
}

// startWrites writes until it is stopped. A write fails only while an upgrade has the
// store, while the process stops, or because it has just been replaced.
func (g *gateway) startWrites() *writes {
	ctx, end := context.WithCancel(context.Background())
	w := &writes{end: end}
	admin := g.admin // a restart replaces the field
	w.all.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			u := plainUpstream("written", "127.0.0.1:1")
			u.Labels = map[string]string{"n": strconv.Itoa(i)}
			resp, err := admin.Apply(context.Background(), &adminv1.ApplyRequest{Resources: wrap(g.t, []proto.Message{u})})
			switch status.Code(err) {
			case codes.OK:
				w.acknowledged.Add(1)
				w.last.Store(resp.GetChange().GetRevision())
			case codes.Unavailable:
				w.refused.Add(1)
			default:
				g.t.Errorf("a write failed: %v", err)
				return
			}
			time.Sleep(2 * time.Millisecond) // limits the rate
		}
	})
	g.t.Cleanup(w.stop)
	return w
}

func (w *writes) stop() {
	w.end()
	w.all.Wait()
}

func TestASecondUpgradeIsRefusedMeanwhile(t *testing.T) {
	t.Parallel()
	g := upgradable(t, "--upgrade-timeout", "10m", "--program-root", "/")
	end := filepath.Join(t.TempDir(), "end")
	slow := script(t, "until [ -e "+end+" ]; do sleep 0.1; done; exit 1")
	first := make(chan result, 1)
	go func() { first <- g.tryUpgrade("--binary", slow) }()
	g.logged(upgradeStarted)
	if r := g.tryUpgrade(); r.code != 1 || !strings.Contains(r.stderr, "another upgrade is in progress") {
		t.Errorf("%v", r)
	}
	writeFile(t, end, nil)
	if r := <-first; r.code != 1 {
		t.Errorf("%v", r)
	}
	g.upgrade()
}

// An upgrade to any kind of broken program has no effect on clients, nor on writes after
// the command has returned.
func TestABrokenProgramChangesNothing(t *testing.T) {
	t.Parallel()
	for timeout, hangs := range map[string]bool{"3s": true, "2m": false} { // only a program that hangs may time out
		t.Run(map[bool]string{true: "it hangs", false: "it fails"}[hangs], func(t *testing.T) {
			t.Parallel()
			testBrokenPrograms(t, timeout, hangs)
		})
	}
}

// testBrokenPrograms tries the programs that hang, or the others.
func testBrokenPrograms(t *testing.T, timeout string, hangs bool) {
	g := upgradable(t, "--upgrade-timeout", timeout, "--program-root", "/")
	g.apply(plainUpstream("web", serveHTTP(t, respondsWith("web"))), listener("web", protocolHTTP, "web"))
	revision := g.getStatus().GetRevision()
	pid := g.pid()
	load := startNewConnections(t, dialers(map[string]string{g.address("web"): "tcp", g.socket: "unix-connect"}))
	dir := t.TempDir()
	text := writeFile(t, filepath.Join(dir, "text"), []byte("not a program\n"))
	garbage := writeFile(t, filepath.Join(dir, "garbage"), []byte("not a program\n"))
	if err := os.Chmod(garbage, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, program, message string }{
		{"is missing", filepath.Join(dir, "missing"), "no such file"},
		{"is a directory", dir, "permission denied"},
		{"is not executable", text, "permission denied"},
		{"is not a program", garbage, "exec format error"},
		{"exits with 0 early", script(t, "exit 0"), "exit status 0"},
		{"fails early", script(t, "exit 3"), "exit status 3"},
		{"hangs", script(t, "exec sleep 60"), "--upgrade-timeout"},
		{"does not know a flag", script(t, `exec "`+program(t)+`" "$@" --no-such-flag`), "unknown flag: --no-such-flag"},
		{"cannot bind", script(t, `exec "`+program(t)+`" "$@" --ops `+strings.TrimPrefix(g.address("web"), "tcp:")), "address already in use"},
		{"crashes when it has the store", successor(t, "crash"), "signal: killed"},
		{"brings the store to a newer format and fails", successor(t, "migrate"), "store"},
		{"hangs when it has the store", successor(t, "hang"), "--upgrade-timeout"},
		{"crashes when it accepts connections", successor(t, "accept"), "signal: killed"},
		{"would have a resource down", successor(t, "down"), "listener web: a certificate"},
		{"sends garbage", successor(t, "nonsense"), "invalid"},
	} {
		if (c.message == "--upgrade-timeout") != hangs {
			continue
		}
		r := g.tryUpgrade("--binary", c.program)
		if r.code != 1 || !strings.Contains(r.stderr, c.message) || !strings.Contains(r.stderr, "the old process continues") {
			t.Errorf("a program that %s: %v", c.name, r)
		}
		change := g.apply(&adminv1.TrustBundle{Name: "t", Labels: map[string]string{"n": fmt.Sprint(revision)}, Source: &adminv1.TrustBundle_System{System: &adminv1.SystemRoots{}}})
		if revision++; change.GetRevision() != revision {
			t.Errorf("after a program that %s the revision is %d, want %d", c.name, change.GetRevision(), revision)
		}
	}
	if now := g.pid(); now != pid {
		t.Errorf("process %d serves, not %d", now, pid)
	}
	load.stop()
	g.upgrade()
	if got := g.getStatus().GetRevision(); got != revision {
		t.Errorf("after an upgrade revision %d is live, want %d", got, revision)
	}
}

// script writes a shell script.
func script(t testing.TB, text string) string {
	t.Helper()
	path := writeFile(t, filepath.Join(t.TempDir(), "new"), []byte("#!/bin/sh\n"+text+"\n"))
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// successor writes a script that runs TestSuccessor in the test binary, as the new
// process of an upgrade.
func successor(t testing.TB, how string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return script(t, `while [ $# -gt 0 ]; do [ "$1" = --data-dir ] && export E2E_DATA_DIR="$2"; shift; done
E2E_SUCCESSOR=`+how+` exec "`+self+`" -test.run='^TestSuccessor$'`)
}

// TestSuccessor acts as the new process of an upgrade until it fails.
func TestSuccessor(t *testing.T) {
	how := os.Getenv("E2E_SUCCESSOR")
	if how == "" {
		t.Skip("this is run by another test")
	}
	conn, err := net.FileConn(os.NewFile(3, "upgrade"))
	if err != nil {
		t.Fatal(err)
	}
	send := func(m map[string]any) {
		text, _ := json.Marshal(m)
		if _, err := conn.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	receive := func(last bool) {
		for {
			buffer, oob := make([]byte, 64<<10), make([]byte, 4096)
			n, _, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(buffer, oob)
			var m map[string]any
			if err != nil || json.Unmarshal(buffer[:n], &m) != nil {
				t.Fatal(err)
			}
			if !last || m["last"] == true {
				return
			}
		}
	}
	die := func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) }
	if how == "nonsense" {
		_, _ = conn.Write([]byte("nonsense"))
		time.Sleep(testTimeout)
	}
	send(map[string]any{"type": "hello", "text": "v0"})
	receive(true)
	store := filepath.Join(os.Getenv("E2E_DATA_DIR"), "state.db")
	switch how {
	case "crash":
		die()
	case "hang":
		time.Sleep(testTimeout)
	case "migrate":
		if err := os.WriteFile(store, []byte("a format that no other version reads"), 0o600); err != nil {
			t.Fatal(err)
		}
		send(map[string]any{"type": "failed", "text": "the store cannot be used"})
		time.Sleep(testTimeout)
	case "down":
		send(map[string]any{"type": "down", "down": map[string]string{"listener web": "a certificate is missing"}, "last": true})
		time.Sleep(testTimeout)
	}
	send(map[string]any{"type": "down", "last": true})
	receive(false)
	die()
}

var upgradeStarted = regexp.MustCompile(`upgrade: starting a new (process)`)

// The new process gets the ticket keys, so clients can resume their sessions after an
// upgrade.
func TestClientsResumeTheirSessionsAfterAnUpgrade(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	g := upgradable(t)
	secure := listener("secure", protocolHTTP, "web")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	g.apply(plainUpstream("web", serveHTTP(t, respondsWith("web"))), certificate("front", a.server), secure)
	address := g.address("secure")
	config := &tls.Config{RootCAs: pool(a.ca), ServerName: serverName, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for i := range 3 {
		conn, err := tls.Dial("tcp", address, config)
		if err != nil {
			t.Fatal(err)
		}
		if err := askOnce(conn); err != nil { // this also reads the ticket
			t.Fatal(err)
		}
		if resumed := conn.ConnectionState().DidResume; resumed != (i > 0) {
			t.Errorf("after %d upgrades: resumed is %t", i, resumed)
		}
		g.upgrade()
	}
}

// Clients that wait in the kernel's queue during an upgrade are served.
func TestClientsInTheQueueAreServedAfterAnUpgrade(t *testing.T) {
	t.Parallel()
	g := upgradable(t, "--program-root", "/")
	g.apply(plainUpstream("web", serveHTTP(t, respondsWith("web"))), listener("web", protocolHTTP, "web"))
	web, pid := g.address("web"), g.pid()
	upgraded := make(chan result, 1)
	go func() {
		upgraded <- g.tryUpgrade("--binary", script(t, `kill -STOP `+strconv.Itoa(pid)+`; sleep 0.3; kill -CONT `+strconv.Itoa(pid)+`; exec "`+program(t)+`" "$@"`))
	}()
	g.logged(upgradeStarted)
	var parked sync.WaitGroup
	for range 100 {
		conn, err := net.DialTimeout("tcp", web, testTimeout)
		if err != nil {
			t.Fatal(err)
		}
		parked.Go(func() {
			if err := askOnce(conn); err != nil {
				t.Error(err)
			}
		})
	}
	if r := <-upgraded; r.code != 0 {
		t.Errorf("%v", r)
	}
	parked.Wait()
}
