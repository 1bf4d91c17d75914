package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// built is the program under test, built on first use.
var built struct {
	sync.Once
	dir, path string
	err       error
}

// program returns the path of the program under test: DRAWBRIDGE_BINARY, or
// else a program built once with the race detector.
func program(t testing.TB) string {
	t.Helper()
	built.Do(func() {
		if given := os.Getenv("DRAWBRIDGE_BINARY"); given != "" {
			if built.path = given; !filepath.IsAbs(given) {
				built.err = fmt.Errorf("DRAWBRIDGE_BINARY is %q, and must be an absolute path", given)
			}
			return
		}
		if built.dir, built.err = os.MkdirTemp("", "drawbridge-e2e-"); built.err != nil {
			return
		}
		built.path = filepath.Join(built.dir, "drawbridge")
		// By default the race detector delays a program's exit by a second.
		built.err = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
		build := exec.Command("go", "build", "-race", "-o", built.path, "../cmd/drawbridge")
		if out, err := build.CombinedOutput(); built.err == nil && err != nil {
			built.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatalf("no program to test: %v", built.err)
	}
	return built.path
}

// testTimeout bounds every wait in these tests. Only failures reach it, so it is
// long enough for a machine that stalls for many seconds.
const testTimeout = 90 * time.Second

// eventually waits until ok returns true, polling less and less often.
func eventually(t testing.TB, condition string, ok func() bool) {
	t.Helper()
	if !pollUntil(ok) {
		t.Fatalf("not after %v: %s", testTimeout, condition)
	}
}

// pollUntil is eventually for tests with their own failure message.
func pollUntil(ok func() bool) bool {
	deadline := time.Now().Add(testTimeout)
	for pause := time.Millisecond; !ok(); pause = min(2*pause, 100*time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pause)
	}
	return true
}

// longContext returns a context that ends with the test, or after a time that is long
// enough for a busy machine.
func longContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// need returns the path of an installed program. It skips the test if the
// program is missing; with CI set, that is a failure.
func need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		missing(t, program+" is not installed")
	}
	return path
}

func missing(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// shortDir is t.TempDir for directories with a unix socket, whose path is
// limited to about 100 bytes.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "db-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func writeFile(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// An output holds the output of a process.
type output struct{ logtest.Buffer }

func (o *output) contains(s string) bool { return strings.Contains(o.String(), s) }

// A process is a running program. It ends with the test at the latest.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	out    *output       // standard output and standard error
	exited chan struct{} // closed once the process has ended; then err is its result
	err    error
}

// start runs a program, which ends with the test, even if the test is killed.
func start(t testing.TB, name string, args ...string) *process {
	t.Helper()
	return startTo(t, nil, name, args...)
}

// startTo is start with another standard error, unless stderr is nil.
func startTo(t testing.TB, stderr *os.File, name string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(name, args...)
	if stderr != nil {
		cmd.Stderr = stderr
	}
	return startCmd(t, cmd)
}

// startCmd is start for a command with its own settings.
func startCmd(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, out: &output{}, exited: make(chan struct{})}
	p.cmd.Stdout = p.out
	if p.cmd.Stderr == nil {
		p.cmd.Stderr = p.out
	}
	dieWithParent(p.cmd)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal %v: %v", s, err)
	}
}

// kill ends the process immediately, like a power cut, and waits for its end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// wait waits until the process ends by itself and returns its exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(testTimeout):
		p.t.Fatalf("%s still runs after %v:\n%s", p.cmd.Path, testTimeout, tail(p.out.String()))
		return -1
	}
}

// done reports whether the process has ended.
func (p *process) done() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// A result is the output and exit code of a finished command.
type result struct {
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\nstdout:\n%s\nstderr:\n%s", r.code, tail(r.stdout), tail(r.stderr))
}

// command runs a program to its end.
func command(t testing.TB, name string, args ...string) result {
	t.Helper()
	return commandInput(t, "", name, args...)
}

func commandInput(t testing.TB, stdin, name string, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(longContext(t), name, args...)
	var stdout, stderr strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	dieWithParent(cmd)
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", name, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// tail returns the last lines of a long text.
func tail(s string) string {
	const most = 20_000
	if len(s) <= most {
		return s
	}
	return "…" + s[len(s)-most:]
}
