// The system call filter of the systemd unit allows every call that a gateway needs,
// and forbids calls that it does not need.

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A filteredRun is the command that TestRunFiltered runs, with its filter.
type filteredRun struct {
	Allowed []int // numbers of system calls
	Args    []string
}

func TestAGatewayWorksUnderTheFilterOfTheUnit(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("the test knows only the system calls of amd64")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	g := newGateway(t, filepath.Join(dir, "data"), "--pid-file", filepath.Join(dir, "pid"), "--ops", "127.0.0.1:0", "--access-log", filepath.Join(dir, "access.log"), "--drain-timeout", "30s")
	text, err := json.Marshal(filteredRun{Allowed: allowedByUnit(t), Args: append([]string{program(t)}, g.serveArgs()...)})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestRunFiltered$")
	cmd.Env = append(os.Environ(), "E2E_FILTERED="+string(text))
	g.runs(startCmd(t, cmd))
	t.Cleanup(func() { g.killReplaced() }) // before the wait for the first process, whose output its successors share
	g.awaitReady()

	a := newAuthority(t)
	secure, onUnix := listener("secure", protocolHTTP, "backend"), listener("unix", protocolHTTP, "web")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"front"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"ca"}}
	onUnix.Address = "unix:" + filepath.Join(dir, "web.sock")
	onUnix.Unix = &adminv1.UnixOptions{Group: strconv.Itoa(os.Getgid())}
	_, port, _ := strings.Cut(serveHTTP(t, respondsWith("web")), ":")
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", a.server),
		upstream("backend", a.settings(), serveHTTPS(t, a.serverConfig(t), respondsWith("hello"))), plainUpstream("web", "localhost:"+port),
		upstream("raw", a.settings(), serveConns(t, a.serverConfig(t), echo)),
		secure, onUnix, listener("web", protocolHTTP, "web"), listener("tcp", protocolTCP, "raw"))
	for range 2 {
		if c := g.getStatus().GetConfinement(); !c.GetSystemCallFilter() || len(c.GetMissing()) > 0 {
			t.Errorf("%v", c)
		}
		for address, network := range map[string]string{g.address("web"): "tcp", filepath.Join(dir, "web.sock"): "unix"} {
			conn, err := dialers(map[string]string{address: network})[0]()
			if err == nil {
				err = askOnce(conn)
			}
			if err != nil {
				t.Errorf("%s: %v", network, err)
			}
		}
		if r := command(t, need(t, "curl"), "-sS", "--cacert", writeFile(t, filepath.Join(dir, "ca.pem"), a.ca.RootPEM()), "--cert", writeFile(t, filepath.Join(dir, "cert.pem"), a.client.ChainPEM),
			"--key", writeFile(t, filepath.Join(dir, "key.pem"), a.client.KeyPEM), "--connect-to", serverName+":443:"+g.address("secure"), "https://"+serverName+"/"); r.stdout != "hello" {
			t.Error(r)
		}
		conn, err := net.Dial("tcp", g.address("tcp"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("word")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 4)); err != nil {
			t.Error(err)
		}
		conn.Close()
		if err := syscall.Kill(g.pid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		g.upgrade()
	}
}

// TestRunFiltered becomes the program under the filter.
func TestRunFiltered(t *testing.T) {
	var run filteredRun
	if err := json.Unmarshal([]byte(os.Getenv("E2E_FILTERED")), &run); err != nil {
		t.Skip("this is run by another test")
	}
	os.Unsetenv("E2E_FILTERED")
	runtime.LockOSThread() // the filter is that of this thread, and of the program that replaces it
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	filter := allowOnly(run.Allowed)
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})), 0, 0); err != nil {
		t.Fatal(err)
	}
	for name, number := range map[string]uintptr{
		"mount": unix.SYS_MOUNT, "ptrace": unix.SYS_PTRACE, "bpf": unix.SYS_BPF, "io_uring_setup": unix.SYS_IO_URING_SETUP, "unshare": unix.SYS_UNSHARE,
		"keyctl": unix.SYS_KEYCTL, "setuid": unix.SYS_SETUID, "memfd_create": unix.SYS_MEMFD_CREATE, "process_vm_readv": unix.SYS_PROCESS_VM_READV,
		"init_module": unix.SYS_INIT_MODULE, "perf_event_open": unix.SYS_PERF_EVENT_OPEN, "userfaultfd": unix.SYS_USERFAULTFD, "shmget": unix.SYS_SHMGET,
	} {
		if _, _, errno := syscall.RawSyscall(number, 0, 0, 0); errno != syscall.EPERM {
			t.Fatalf("%s: %v, want %v", name, errno, syscall.EPERM)
		}
	}
	t.Fatal(syscall.Exec(run.Args[0], run.Args, os.Environ()))
}

// allowOnly returns a filter that makes other system calls fail with EPERM, as the unit's
// SystemCallErrorNumber says.
func allowOnly(numbers []int) []unix.SockFilter {
	const numberAt, archAt = 0, 4 // offsets in struct seccomp_data
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	unlessEqual := func(value uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: 1}
	}
	result := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	deny := result(unix.SECCOMP_RET_ERRNO | uint32(syscall.EPERM))
	out := []unix.SockFilter{load(archAt), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AUDIT_ARCH_X86_64, Jt: 1}, deny, load(numberAt)}
	for _, n := range numbers {
		out = append(out, unlessEqual(uint32(n)), result(unix.SECCOMP_RET_ALLOW))
	}
	return append(out, deny)
}

// allowedByUnit returns the numbers of the system calls that the unit allows.
func allowedByUnit(t *testing.T) []int {
	t.Helper()
	unit, err := os.ReadFile("../deploy/drawbridge.service")
	if err != nil {
		t.Fatal(err)
	}
	numbers := systemCalls(t)
	allowed := map[string]bool{}
	var set func(name string, to bool)
	set = func(name string, to bool) {
		if !strings.HasPrefix(name, "@") {
			if allowed[name] = to; !to {
				delete(allowed, name)
			}
			return
		}
		members := command(t, analyzer(t), "syscall-filter", name)
		if members.code != 0 {
			t.Fatal(members)
		}
		for _, line := range strings.Split(members.stdout, "\n")[1:] {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				set(line, to)
			}
		}
	}
	lines := 0
	for line := range strings.Lines(string(unit)) {
		value, ok := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter=")
		if !ok {
			continue
		}
		lines++
		value, denied := strings.CutPrefix(value, "~")
		for _, name := range strings.Fields(value) {
			if _, known := numbers[name]; !known && !strings.HasPrefix(name, "@") {
				t.Errorf("the unit names %q, which is no system call", name)
			}
			set(name, !denied)
		}
	}
	set("@default", true) // systemd always allows these
	if lines == 0 {
		t.Fatal("the unit has no filter")
	}
	var out []int
	for name := range allowed {
		if n, ok := numbers[name]; ok { // others exist on other machines
			out = append(out, n)
		}
	}
	return out
}

// analyzer returns the program that lists the members of systemd's sets.
func analyzer(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: the sets of system calls are unknown")
	}
	return path
}

var systemCall = regexp.MustCompile(`(?m)^\s+SYS_(\w+)\s+= (\d+)$`)

// systemCalls returns the numbers of the system calls by name, from the source of
// golang.org/x/sys.
func systemCalls(t *testing.T) map[string]int {
	t.Helper()
	dir := command(t, "go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys")
	if dir.code != 0 {
		t.Fatal(dir)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(dir.stdout), "unix", fmt.Sprintf("zsysnum_linux_%s.go", runtime.GOARCH)))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, match := range systemCall.FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.Atoi(match[2])
		if err != nil {
			t.Fatal(err)
		}
		out[strings.ToLower(match[1])] = n
	}
	return out
}
