package confine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"github.com/spf13/pflag"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// The rules cover everything that the flags can name. The expectation omits the rules
// of systemDirs.
func TestRulesCoverWhatTheFlagsName(t *testing.T) {
	links := map[string]string{
		"/etc/resolv.conf": "/run/systemd/resolve/stub-resolv.conf", "/certs/admin.pem": "/certs/..data/admin.pem",
		"/opt/bin/drawbridge": "/opt/drawbridge-1.4/drawbridge", "/logs/access.log": "/mnt/access.log",
	}
	p := Paths{
		DataDir: "/data", FileRoots: []string{"/certs", "/more"}, AdminSocket: "/run/db/admin.sock",
		Files: []string{"/certs/admin.pem", "/conf/policy.yaml", ""}, Dirs: []string{"/conf.d"},
		Logs: []string{"/logs/access.log", "/data/audit.log", ""}, PIDFile: "/run/db/pid", Program: "/opt/bin/drawbridge",
		Resolve: func(path string) string { return links[path] },
	}
	var got []string
	for _, r := range Rules(p) {
		if !slices.Contains(systemDirs, r.Path) && !strings.HasPrefix(r.Path, "/etc/") {
			got = append(got, fmt.Sprint(r.Path, " ", r.Rights))
		}
	}
	want := []string{
		"/ {remove_file,make_sock}",
		"/certs {read_file,read_dir}",
		"/certs/..data {read_file,read_dir}",
		"/conf {read_file,read_dir}",
		"/conf.d {read_file,read_dir}",
		"/data {write_file,read_file,read_dir,remove_dir,remove_file,make_dir,make_reg,make_sock,refer,truncate}",
		"/data/audit.log {write_file,truncate}",
		"/dev/null {write_file,read_file}",
		"/dev/urandom {read_file}",
		"/logs {write_file,make_reg,truncate}",
		"/logs/access.log {write_file,truncate}",
		"/mnt {write_file,make_reg,truncate}",
		"/more {read_file,read_dir}",
		"/opt/bin {execute,read_file,read_dir}",
		"/opt/drawbridge-1.4 {execute,read_file,read_dir}",
		"/run/db {write_file,read_file,read_dir,remove_dir,remove_file,make_dir,make_reg,make_sock,refer,truncate}",
		"/run/systemd/resolve {read_file,read_dir}",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the rules are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A log that is a device or a descriptor of the process gives no right to other devices.
func TestALogMayBeADevice(t *testing.T) {
	for _, log := range []string{"/dev/stdout", "/proc/self/fd/1"} {
		for _, r := range Rules(Paths{Logs: []string{log}}) {
			if r.Rights&ll.AccessFSMakeReg != 0 || r.Rights&ll.AccessFSWriteFile != 0 && r.Path != log && r.Path != "/dev/null" {
				t.Errorf("%s: %v", r.Path, r.Rights)
			}
		}
	}
}

func TestProgramRootsReplaceTheDirectoryOfTheProgram(t *testing.T) {
	p := Paths{DataDir: "/data", Program: "/opt/bin/drawbridge", ProgramRoots: []string{"/srv/drawbridge"}, Dynamic: true}
	var got []string
	for _, r := range Rules(p) {
		if r.Rights&execute == execute {
			got = append(got, r.Path)
		}
	}
	if want := []string{"/lib", "/lib64", "/srv/drawbridge", "/usr/lib", "/usr/lib64"}; !slices.Equal(got, want) {
		t.Errorf("programs may be in %v, want %v", got, want)
	}
}

// With any flags, few directories are writable.
func TestNothingElseIsWritable(t *testing.T) {
	const change = store &^ (read | sockets)
	for _, r := range Rules(Paths{DataDir: "/data"}) {
		if r.Rights&change != 0 && r.Path != "/data" && r.Path != "/dev/null" {
			t.Errorf("%s: %v", r.Path, r.Rights)
		}
	}
}

func TestFlags(t *testing.T) {
	for line, want := range map[string]string{
		"": "", "--landlock=false --no-new-privileges=false": "",
		"--no-new-privileges=false":         "--no-new-privileges=false needs --landlock=false",
		"--program-root /no/such/directory": "must be a directory",
	} {
		set := pflag.NewFlagSet("", pflag.ContinueOnError)
		f := AddFlags(set)
		if err := set.Parse(strings.Fields(line)); err != nil {
			t.Fatal(err)
		}
		if err := f.Check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
}

func TestCheckProgramSaysWhereProgramsMayBe(t *testing.T) {
	top := t.TempDir()
	own, link, other := filepath.Join(top, "bin", "own"), filepath.Join(top, "bin", "link"), filepath.Join(top, "other", "new")
	for _, path := range []string{own, other} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	confined := &adminv1.Confinement{Landlock: true}
	for _, c := range []struct {
		program string
		roots   []string
		state   *adminv1.Confinement
		refused bool
	}{
		{own, nil, confined, false},
		{other, nil, confined, true},
		{other, nil, &adminv1.Confinement{}, false},
		{other, []string{filepath.Dir(other)}, confined, false},
		{link, nil, confined, true},
		{link, []string{top}, confined, false},
		{filepath.Join(top, "missing"), nil, confined, false}, // the kernel reports it
	} {
		f := &Flags{programRoots: c.roots}
		if err := f.CheckProgram(c.state, own, c.program); (err != nil) != c.refused || err != nil && !strings.Contains(err.Error(), "--program-root "+filepath.Dir(other)) {
			t.Errorf("%s below %v: %v", c.program, c.roots, err)
		}
	}
}

func TestTheNewProcessInheritsTheRestrictions(t *testing.T) {
	before := &adminv1.Confinement{Landlock: true, LandlockVersion: 2}
	for _, v := range Environment(before) {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	inherited := Inherited(true)
	if inherited != 2 || Inherited(true) != 0 || Environment(&adminv1.Confinement{}) != nil {
		t.Errorf("inherited %d, want 2, and only once", inherited)
	}
	c, err := (&Flags{landlock: true}).Apply(t.Context(), func() Paths { return Paths{} }, inherited, os.LookupEnv, hclog.NewNullLogger())
	if err != nil || !c.GetLandlock() || c.GetLandlockVersion() != 2 || len(c.GetMissing()) != 3 { // no_new_privs, truncate, ioctl
		t.Errorf("%v", c)
	}
	t.Setenv(inheritedVariable, "2")
	if got := Inherited(false); got != 0 {
		t.Errorf("a process that replaces no other inherited %d", got)
	}
}
