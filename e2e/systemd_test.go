// systemd accepts the systemd unit without a warning and rates its exposure as
// low.

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestSystemdAcceptsTheUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not on this machine")
	}
	unit, err := os.ReadFile("../deploy/drawbridge.service")
	if err != nil {
		t.Fatal(err)
	}
	// The unit's binary need not be installed here.
	text := strings.ReplaceAll(string(unit), "/usr/local/bin/drawbridge", program(t))
	if version := systemdVersion(t, analyze); version < 253 {
		t.Logf("systemd %d does not know Type=notify-reload: checking with Type=notify", version)
		text = strings.ReplaceAll(text, "Type=notify-reload", "Type=notify")
	}
	path := filepath.Join(t.TempDir(), "drawbridge.service")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput(); err != nil || strings.Contains(string(out), "drawbridge.service:") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out, err := exec.Command(analyze, "security", "--offline=true", "--no-pager", path).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze security: %v\n%s", err, out)
	}
	m := regexp.MustCompile(`exposure level for drawbridge.service: ([0-9.]+)`).FindStringSubmatch(string(out))
	if m == nil {
		t.Fatalf("no exposure level in\n%s", out)
	}
	if level, err := strconv.ParseFloat(m[1], 64); err != nil || level > 2 { // on a scale from 0 to 10
		t.Errorf("the exposure level is %s\n%s", m[1], out)
	}
	for _, wrong := range []string{"ProcSubset=pid"} { // this would hide net.core.somaxconn, so the backlog would be 128
		if strings.Contains(text, "\n"+wrong) {
			t.Errorf("the unit has %s", wrong)
		}
	}
	for _, right := range []string{"LimitCORE=0", "RuntimeDirectory=drawbridge", "RuntimeDirectoryPreserve=restart", "NotifyAccess=main"} {
		if !strings.Contains(text, "\n"+right+"\n") {
			t.Errorf("the unit lacks %s", right)
		}
	}
}

func systemdVersion(t *testing.T, analyze string) int {
	t.Helper()
	out, err := exec.Command(analyze, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`^systemd (\d+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("no version in %q", out)
	}
	version, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return version
}
