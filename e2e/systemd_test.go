// systemd accepts the systemd unit without a warning and rates its exposure as
// low. It also accepts the drop-in for a fleet, which makes a gateway join one.

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
	verifyUnit(t, analyze, path)
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

// verifyUnit fails if systemd has an error or a warning for a unit or its drop-ins.
func verifyUnit(t *testing.T, analyze, path string) {
	t.Helper()
	if out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput(); err != nil || strings.Contains(string(out), filepath.Base(path)) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// dropIn is the drop-in that makes a gateway a member of a fleet.
const dropIn = "../deploy/drawbridge.service.d/fleet.conf"

// systemd accepts the drop-in for a fleet, and would not accept a wrong one.
func TestTheDropInOfAFleetIsWhatSystemdWants(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not on this machine")
	}
	text := readPage(t, dropIn)
	unit := filepath.Join(t.TempDir(), "fleet-test.service")
	writeFile(t, unit, []byte("[Service]\nExecStart="+program(t)+" serve\n"))
	conf := filepath.Join(unit+".d", "fleet.conf")
	if err := os.Mkdir(unit+".d", 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, conf, []byte(text))
	verifyUnit(t, analyze, unit)
	writeFile(t, conf, []byte(strings.Replace(text, "LoadCredential=", "LoadCredentials=", 1)))
	if out, _ := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput(); !strings.Contains(string(out), "fleet-test.service") {
		t.Errorf("systemd-analyze verify does not read the drop-in: it printed %q", out)
	}
}

// A gateway with the environment and the credentials of the drop-in joins the fleet.
func TestAGatewayWithTheDropInJoinsTheFleet(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := startEtcd(t, a, 1)
	etc, credentials := c.dir, shortDir(t)
	for name, data := range map[string][]byte{"etcd-ca.pem": a.ca.RootPEM(), "etcd-client.pem": a.client.ChainPEM, "etcd-client-key.pem": a.client.KeyPEM} {
		writeFile(t, filepath.Join(etc, name), data)
	}
	cmd := exec.Command(program(t), "serve", "--data-dir", filepath.Join(shortDir(t), "data"), "--log-level", "warn")
	cmd.Env = append(os.Environ(), "CREDENTIALS_DIRECTORY="+credentials)
	for line := range strings.Lines(readPage(t, dropIn)) {
		line = strings.TrimSpace(line)
		if v, ok := strings.CutPrefix(line, "Environment="); ok {
			v = strings.ReplaceAll(v, "%d", credentials)
			cmd.Env = append(cmd.Env, strings.Replace(v, "https://etcd-1:2379,https://etcd-2:2379,https://etcd-3:2379", c.clients[0], 1))
		}
		if v, ok := strings.CutPrefix(line, "LoadCredential="); ok {
			name, path, _ := strings.Cut(v, ":")
			writeFile(t, filepath.Join(credentials, name), []byte(readPage(t, strings.Replace(path, "/etc/drawbridge", etc, 1))))
		}
	}
	socket := "unix:" + filepath.Join(cmd.Args[3], "admin.sock")
	p := startCmd(t, cmd)
	var list result
	eventually(t, "the gateway is a member of the fleet", func() bool {
		if p.done() {
			t.Fatalf("serve ended:\n%s", p.out)
		}
		list = command(t, program(t), "gateways", "--admin", socket)
		return list.code == 0 && strings.Contains(list.stdout, "connected")
	})
	if !strings.Contains(list.stdout, "tier=edge,zone=a") {
		t.Errorf("the labels of the drop-in are missing: %s", list)
	}
	if status := command(t, program(t), "status", "--admin", socket); !strings.Contains(status.stdout, "sealed") {
		t.Errorf("the state is not sealed: %s", status)
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
