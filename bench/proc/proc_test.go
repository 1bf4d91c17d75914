package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// fake writes a /proc with the given processes: pid, parent, name, times.
func fake(t *testing.T, processes ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range processes {
		var pid, parent int
		var name, times, anon string
		if _, err := fmt.Sscanf(p, "%d %d %s %s %s", &pid, &parent, &name, &times, &anon); err != nil {
			t.Fatal(err)
		}
		var utime, stime, cutime, cstime int
		if _, err := fmt.Sscanf(times, "%d,%d,%d,%d", &utime, &stime, &cutime, &cstime); err != nil {
			t.Fatal(err)
		}
		d := filepath.Join(dir, strconv.Itoa(pid))
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		stat := fmt.Sprintf("%d (%s) S %d 1 1 0 -1 4194560 2000 0 0 0 %d %d %d %d 20 0 9 0 5 1 1\n",
			pid, name, parent, utime, stime, cutime, cstime)
		status := "Name:\tx\nVmRSS:\t  9999 kB\nRssAnon:\t    " + anon + " kB\nRssFile:\t  1 kB\n"
		for file, text := range map[string]string{"stat": stat, "status": status} {
			if err := os.WriteFile(filepath.Join(d, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "sys"), 0o700); err != nil { // not a process
		t.Fatal(err)
	}
	return dir
}

func TestATreeIsAProcessAndItsDescendants(t *testing.T) {
	dir := fake(t,
		"1 0 init 900,900,900,900 900",
		"10 1 master 1,2,0,0 100",
		"11 10 worker)(S 30,40,0,0 200",
		"12 11 helper 500,0,7,0 300",
		"20 1 other 900,900,0,0 900",
	)
	tree := Tree{PID: 10, Dir: dir}
	cpu, err := tree.CPU()
	if want := (1 + 2 + 30 + 40 + 500 + 7) * 10 * time.Millisecond; err != nil || cpu != want {
		t.Errorf("CPU is %v, %v, want %v", cpu, err, want)
	}
	anon, err := tree.Anon()
	if want := int64(600 << 10); err != nil || anon != want {
		t.Errorf("RssAnon is %d, %v, want %d", anon, err, want)
	}
	if _, err := (Tree{PID: 99, Dir: dir}).CPU(); err == nil {
		t.Error("a process that is gone has used nothing, and no error")
	}
}

func TestUnreadableFilesAreErrors(t *testing.T) {
	for _, text := range []string{"", "10 (x", "10 (x) S 1", "10 (x) S y 1 1 0 -1 1 1 1 1 1 1 1 1 1 1"} {
		if _, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
	if _, err := parseAnon([]byte("RssAnon: many kB\n")); err == nil {
		t.Error("RssAnon of many was read")
	}
	if n, err := parseAnon([]byte("Name: zombie\n")); n != 0 || err != nil {
		t.Errorf("a process that ended holds %d, %v", n, err)
	}
}

func TestThisProcessIsFoundInTheRealProc(t *testing.T) {
	tree := Tree{PID: os.Getpid()}
	if _, err := tree.CPU(); err != nil {
		t.Error(err)
	}
	if n, err := tree.Anon(); err != nil || n == 0 {
		t.Errorf("RssAnon is %d, %v", n, err)
	}
}

func TestTheClockIsTheCPUTimeOfTheProcess(t *testing.T) {
	self := Tree{PID: os.Getpid()}
	before, err := self.Clock()
	if err != nil {
		t.Fatal(err)
	}
	var own, now syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		t.Fatal(err)
	}
	spent := func(u syscall.Rusage) time.Duration { return time.Duration(u.Utime.Nano() + u.Stime.Nano()) }
	for now = own; spent(now)-spent(own) < 50*time.Millisecond; {
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &now); err != nil {
			t.Fatal(err)
		}
	}
	after, err := self.Clock()
	if err != nil {
		t.Fatal(err)
	}
	// The kernel may account the two in steps of up to 10 ms.
	if after-before < 30*time.Millisecond {
		t.Errorf("the clock shows %v for %v of work", after-before, spent(now)-spent(own))
	}
	if _, err := (Tree{PID: 1 << 22}).Clock(); err == nil {
		t.Error("a process that does not exist has a clock")
	}
}
