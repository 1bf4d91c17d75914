package install

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// rpm runs rpm on the root. On Debian, rpm needs an extra option.
func (r *root) rpm(args ...string) string {
	r.t.Helper()
	if slices.Contains(args, "--install") || slices.Contains(args, "--upgrade") {
		args = append(args, "--nodeps") // a Debian root has no RPM packages
		if exec.Command("rpm", "--force-debian", "--version").Run() == nil {
			args = append(args, "--force-debian")
		}
	}
	return runCmd(r.t, r.mounted(append([]string{"rpm", "--root", r.dir}, args...)...))
}

// The .rpm installs, upgrades under traffic, and leaves the state when it is erased.
func testRPMPackage(t *testing.T, newer string) {
	_, arch := architecture(t)
	first := released(t, "*."+arch+".rpm")
	if out := run(t, "rpm", "--query", "--package", "--configfiles", first); strings.TrimSpace(out) != "/etc/logrotate.d/drawbridge" {
		t.Errorf("the configuration files are %q", out)
	}
	if out := run(t, "rpm", "--query", "--package", "--requires", first); !strings.Contains(out, "systemd") {
		t.Errorf("the package requires %q", out)
	}
	r := newRoot(t)
	r.manageServices()
	r.rpm("--initdb")
	for _, dir := range []string{"zsh/site-functions", "fish/vendor_completions.d", "licenses"} { // directories of RPM's own base system
		r.run("mkdir", "-p", "/usr/share/"+dir)
	}
	r.run("mkdir", "-p", "/usr/lib/sysusers.d")
	before := r.tree(notOurs...)

	r.rpm("--install", first)
	r.checkInstalled("/usr/share/zsh/site-functions/_drawbridge")
	if out := r.rpm("--verify", "drawbridge", "--nodeps"); out != "" {
		t.Errorf("rpm --verify: %s", out)
	}
	s := r.serve()
	s.apply()
	second := build(t, "rpm", later, newer)
	s.unnoticed("an upgrade", func() { r.rpm("--upgrade", second) })
	if v := s.version(); v != "v"+later {
		t.Errorf("after the upgrade version %s runs", v)
	}
	s.find()
	if err := s.get(); err != nil {
		t.Errorf("the configuration after the upgrade: %v", err)
	}
	if log := r.read("/systemctl.log"); strings.Contains(log, "stop") {
		t.Errorf("the upgrade called systemctl\n%s", log)
	}

	r.rpm("--erase", "drawbridge")
	if log := r.read("/systemctl.log"); !strings.Contains(log, "stop drawbridge.service\n--no-reload disable drawbridge.service\ndaemon-reload\n") {
		t.Errorf("the removal called systemctl\n%s", log)
	}
	for _, stays := range []string{"/var/lib/drawbridge/state.db", "/var/log/drawbridge/access.log", "/etc/drawbridge"} {
		if !r.exists(stays) {
			t.Errorf("the removal deleted %s", stays)
		}
	}
	state := append(slices.Clone(notOurs), "/var/lib/drawbridge", "/var/log/drawbridge", "/etc/drawbridge", "/run/drawbridge")
	for _, d := range differences(before, r.tree(state...)) {
		t.Errorf("after the removal: %s", d)
	}
}
