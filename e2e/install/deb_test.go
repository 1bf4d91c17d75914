package install

import (
	"debug/elf"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// Paths that change when any package is installed or any user is added, and paths that
// the tests write.
var notOurs = []string{
	"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/subuid", "/etc/subgid", "/etc/.pwd.lock",
	"/var/lib/dpkg", "/var/log/dpkg.log", "/var/lib/logrotate", "/var/lib/rpm", "/usr/lib/sysimage/rpm",
	"/systemctl.log", "/usr/bin/systemctl", "/tmp/",
}

func TestPackages(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can install packages")
	}
	made(t, "PACKAGE_ROOT")
	need(t, "rpm")
	newer := makeBinary(t, "../..", "VERSION=v"+later)
	broken := filepath.Join(t.TempDir(), "drawbridge")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Run("deb", func(t *testing.T) { testDebianPackage(t, newer, broken) })
	t.Run("rpm", func(t *testing.T) { testRPMPackage(t, newer) })
}

// The .deb installs, upgrades under traffic, keeps its state when it is removed, and
// leaves nothing when it is purged.
func testDebianPackage(t *testing.T, newer, failing string) {
	deb, _ := architecture(t)
	first := released(t, "*_"+deb+".deb")
	r := newRoot(t)
	r.manageServices()
	before := r.tree(notOurs...)

	r.install(first)
	r.checkInstalled("/usr/share/zsh/vendor-completions/_drawbridge")
	if out := r.run("dpkg", "--verify", "drawbridge"); out != "" {
		t.Errorf("dpkg --verify: %s", out)
	}
	if log := r.read("/systemctl.log"); strings.TrimSpace(log) != "daemon-reload" {
		t.Errorf("the installation called systemctl\n%s", log)
	}
	r.addCertificates()

	s := r.serve()
	s.apply()
	s.checkExamples()
	second := build(t, "deb", later, newer)
	s.unnoticed("an upgrade", func() { r.install(second) })
	if v := s.version(); v != "v"+later {
		t.Errorf("after the upgrade version %s runs", v)
	}
	s.find()
	if err := s.get(); err != nil {
		t.Errorf("the configuration after the upgrade: %v", err)
	}
	s.rotateLogs()

	broken := build(t, "deb", "99.0.1", failing)
	s.unnoticed("an upgrade to a program that fails", func() {
		if out := r.install(broken); !strings.Contains(out, "still runs the old program") {
			t.Errorf("an upgrade to a program that fails says\n%s", out)
		}
	})
	r.install(second)

	r.run("dpkg", "--remove", "drawbridge")
	if log := r.read("/systemctl.log"); !strings.Contains(log, "stop drawbridge.service\n--no-reload disable drawbridge.service\ndaemon-reload\n") {
		t.Errorf("the removal called systemctl\n%s", log)
	}
	for _, stays := range []string{"/var/lib/drawbridge/state.db", "/var/log/drawbridge/access.log", "/etc/drawbridge/client.key", "/etc/logrotate.d/drawbridge"} {
		if !r.exists(stays) {
			t.Errorf("the removal deleted %s", stays)
		}
	}
	if r.exists("/usr/bin/drawbridge") {
		t.Error("the removal left the program")
	}

	r.install(second)
	again := r.serve()
	again.find()
	if err := again.get(); err != nil {
		t.Errorf("the configuration after a removal: %v", err)
	}
	r.run("dpkg", "--purge", "drawbridge")
	for _, own := range []string{"/etc/drawbridge/ca.pem", "/etc/drawbridge/client.pem", "/etc/drawbridge/client.key", "/etc/drawbridge/server.pem", "/etc/drawbridge/server.key"} {
		if !r.exists(own) {
			t.Errorf("the purge deleted the administrator's file %s", own)
		}
	}
	if err := os.RemoveAll(r.path("/etc/drawbridge")); err != nil {
		t.Fatal(err)
	}
	r.install(second)
	r.run("dpkg", "--purge", "drawbridge")
	for _, d := range differences(before, r.tree(notOurs...)) {
		t.Errorf("after the purge: %s", d)
	}
	if out := r.run("getent", "passwd", "drawbridge"); !strings.HasSuffix(strings.TrimSpace(out), ":/usr/sbin/nologin") {
		t.Errorf("the user that may own the administrator's files is %q", out)
	}
}

// install installs a .deb and returns what dpkg prints.
func (r *root) install(deb string) string {
	r.t.Helper()
	data, err := os.ReadFile(deb)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write("/tmp/drawbridge.deb", string(data), 0o644)
	return r.run("dpkg", "--install", "/tmp/drawbridge.deb")
}

// checkInstalled checks the files of an installation, their modes and owners. zsh is the
// directory of zsh's completions.
func (r *root) checkInstalled(zsh string) {
	r.t.Helper()
	for path, want := range map[string]string{
		"/usr/bin/drawbridge":                                  "-rwxr-xr-x root:root",
		"/usr/lib/systemd/system/drawbridge.service":           "-rw-r--r-- root:root",
		"/usr/lib/sysusers.d/drawbridge.conf":                  "-rw-r--r-- root:root",
		"/usr/lib/tmpfiles.d/drawbridge.conf":                  "-rw-r--r-- root:root",
		"/etc/logrotate.d/drawbridge":                          "-rw-r--r-- root:root",
		"/etc/drawbridge":                                      "drwxr-x--- root:drawbridge",
		"/var/lib/drawbridge":                                  "drwx------ drawbridge:drawbridge",
		"/var/log/drawbridge":                                  "drwxr-x--- drawbridge:drawbridge",
		"/usr/share/bash-completion/completions/drawbridge":    "-rw-r--r-- root:root",
		"/usr/share/fish/vendor_completions.d/drawbridge.fish": "-rw-r--r-- root:root",
		zsh:                                   "-rw-r--r-- root:root",
		"/usr/share/man/man1/drawbridge.1.gz": "-rw-r--r-- root:root",
		"/usr/share/man/man1/drawbridge-serve.1.gz":      "-rw-r--r-- root:root",
		"/usr/share/doc/drawbridge/examples":             "drwxr-xr-x root:root",
		"/usr/share/doc/drawbridge/examples/bridge.yaml": "-rw-r--r-- root:root",
		"/usr/share/doc/drawbridge/examples/fleet.conf":  "-rw-r--r-- root:root",
		"/usr/share/doc/drawbridge/changelog.gz":         "-rw-r--r-- root:root",
	} {
		r.owned(path, want)
	}
	for path, marker := range map[string]string{
		"/usr/share/bash-completion/completions/drawbridge": "__start_drawbridge", zsh: "#compdef drawbridge",
		"/usr/share/fish/vendor_completions.d/drawbridge.fish": "complete -c drawbridge",
	} {
		if !strings.Contains(r.read(path), marker) {
			r.t.Errorf("%s has no %q", path, marker)
		}
	}
	if out, want := r.run("drawbridge", "version"), "drawbridge "+os.Getenv("VERSION")+" (commit "; !strings.HasPrefix(out, want) {
		r.t.Errorf("drawbridge version: %q, want %q", out, want)
	}
	f, err := elf.Open(r.path("/usr/bin/drawbridge"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			r.t.Errorf("the program is not static: it has a segment %v", p.Type)
		}
	}
	if out := r.run("getent", "passwd", "drawbridge"); !strings.HasSuffix(strings.TrimSpace(out), ":/var/lib/drawbridge:/usr/sbin/nologin") {
		r.t.Errorf("the user is %q", out)
	}
}

// addCertificates writes the files that the examples need, as described in
// docs/deployment.md.
func (r *root) addCertificates() {
	r.t.Helper()
	ca, err := pki.NewRoot(pki.CAOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.write("/etc/drawbridge/ca.pem", string(ca.RootPEM()), 0o640)
	for name, o := range map[string]pki.LeafOptions{
		"client": {CommonName: "client", Usage: pki.Client}, "server": {CommonName: "server", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Usage: pki.Server},
	} {
		leaf, err := ca.Issue(o)
		if err != nil {
			r.t.Fatal(err)
		}
		r.write("/etc/drawbridge/"+name+".pem", string(leaf.ChainPEM), 0o640)
		r.write("/etc/drawbridge/"+name+".key", string(leaf.KeyPEM), 0o640)
	}
	r.run("sh", "-c", "chgrp drawbridge /etc/drawbridge/*")
}

// checkExamples applies the installed examples as a dry run, to check that the
// installed gateway may read their files.
func (s *service) checkExamples() {
	s.t.Helper()
	files, err := filepath.Glob(s.path("/usr/share/doc/drawbridge/examples/*.yaml"))
	if err != nil || len(files) < 5 {
		s.t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		if name := filepath.Base(file); name != "nginx-upstream.yaml" { // this example uses nginx's files
			s.run("drawbridge", "apply", "--dry-run", "-f", "/usr/share/doc/drawbridge/examples/"+name)
		}
	}
}

// rotateLogs rotates the logs. The gateway then writes to the new files.
func (s *service) rotateLogs() {
	s.t.Helper()
	if err := s.get(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the access log has a record", func() bool { return s.read("/var/log/drawbridge/access.log") != "" })
	s.run("logrotate", "--force", "/etc/logrotate.d/drawbridge")
	for _, log := range []string{"access.log", "audit.log"} {
		if s.read("/var/log/drawbridge/"+log+".1") == "" {
			s.t.Errorf("%s was not rotated", log)
		}
		s.owned("/var/log/drawbridge/"+log, "-rw-r----- drawbridge:drawbridge")
	}
	eventually(s.t, "the gateway writes to the new access log", func() bool {
		return s.get() == nil && s.read("/var/log/drawbridge/access.log") != ""
	})
}

// The packages of both architectures have the same files, each with its own program.
func TestPackagesOfBothArchitectures(t *testing.T) {
	need(t, "dpkg-deb")
	need(t, "rpm")
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "x86_64": elf.EM_X86_64, "aarch64": elf.EM_AARCH64}
	files := make(map[string]string)
	for _, arch := range []string{"amd64", "arm64"} {
		deb := released(t, "*_"+arch+".deb")
		if got := strings.TrimSpace(run(t, "dpkg-deb", "--field", deb, "Architecture")); got != arch {
			t.Errorf("the architecture of %s is %s", deb, got)
		}
		dir := t.TempDir()
		run(t, "dpkg-deb", "--extract", deb, dir)
		binary, err := elf.Open(filepath.Join(dir, "usr/bin/drawbridge"))
		if err != nil {
			t.Fatal(err)
		}
		defer binary.Close()
		if binary.Machine != machines[arch] {
			t.Errorf("the program in %s is for %v", deb, binary.Machine)
		}
		files[arch] = (&root{t, dir}).list()
	}
	for _, arch := range []string{"x86_64", "aarch64"} {
		rpm := released(t, "*."+arch+".rpm")
		if got := run(t, "rpm", "--query", "--package", "--queryformat", "%{ARCH}", rpm); got != arch {
			t.Errorf("the architecture of %s is %s", rpm, got)
		}
		files[arch] = run(t, "rpm", "--query", "--package", "--list", rpm)
	}
	if files["amd64"] != files["arm64"] || files["x86_64"] != files["aarch64"] {
		t.Errorf("the packages have different files:\n%s", files)
	}
	for _, want := range []string{"/usr/bin/drawbridge\n", "/usr/share/man/man1/drawbridge-serve.1.gz\n"} {
		for arch, list := range files {
			if !strings.Contains(list, want) {
				t.Errorf("%s lacks %s", arch, want)
			}
		}
	}
}

// list returns the paths of all files.
func (r *root) list() string {
	return strings.Join(slices.Sorted(maps.Keys(r.tree())), "\n") + "\n"
}

// dpkg and rpm sort the versions of packages by age.
func TestVersionsSort(t *testing.T) {
	need(t, "dpkg")
	need(t, "rpm")
	const epoch = "1700000000"
	var versions []string
	for _, v := range []string{"abcdef0", "v0.0.1-rc.1", "v0.0.1", "v1.2.3-rc.1", "v1.2.3-rc.1-2-gabcdef0", "v1.2.3-rc.2", "v1.2.3", "v1.2.3-5-gabcdef0", "v1.2.3-10-gabcdef0", "v1.2.4", "v1.10.0"} {
		versions = append(versions, run(t, "../../deploy/packages/version", v, epoch))
	}
	for i := range versions[1:] {
		a, b := versions[i], versions[i+1]
		run(t, "dpkg", "--compare-versions", a, "lt", b)
		if got := strings.TrimSpace(run(t, "rpm", "--eval", fmt.Sprintf("%%{lua: print(rpm.vercmp(%q, %q))}", a, b))); got != "-1" {
			t.Errorf("rpm compares %s with %s as %s", a, b, got)
		}
	}
}

// A purge empties a state directory that is a volume of its own, and succeeds.
func TestPurgeOfAMountedStateDirectory(t *testing.T) {
	r := newRoot(t)
	script, err := os.ReadFile("../../deploy/packages/postremove.sh")
	if err != nil {
		t.Fatal(err)
	}
	r.write("/tmp/postrm", string(script), 0o755)
	if err := os.Mkdir(r.path("/var/lib/drawbridge"), 0o700); err != nil {
		t.Fatal(err)
	}
	out := runCmd(t, r.mounted("sh", "-ec", `
		mount -t tmpfs tmpfs "$1/var/lib/drawbridge"
		mkdir "$1/var/lib/drawbridge/old"
		touch "$1/var/lib/drawbridge/state.db" "$1/var/lib/drawbridge/old/.key"
		chroot "$1" sh /tmp/postrm purge
		chroot "$1" find /var/lib/drawbridge`, "sh", r.dir))
	if strings.TrimSpace(out) != "/var/lib/drawbridge" {
		t.Errorf("the purge left\n%s", out)
	}
}
