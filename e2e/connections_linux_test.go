// Open connections can be listed, watched and closed from the command line: closing
// the connections of one listener leaves the others open, and top restores the
// terminal's mode.

package e2e

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestConnectionsAreListedAndClosedFromTheCommandLine(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), upstream("raw", a.settings(), serveConns(t, a.serverConfig(t), echo)),
		listener("one", protocolTCP, "raw"), listener("two", protocolTCP, "raw"))
	one, two := dial(t, g.address("one")), dial(t, g.address("two"))
	for _, c := range []net.Conn{one, two} {
		if err := pingPong(c, "hello"); err != nil {
			t.Fatal(err)
		}
	}
	table := g.cli("connections", "--listener", "one")
	lines := strings.Split(strings.TrimSpace(table.stdout), "\n")
	if table.code != 0 || len(lines) != 2 || !strings.Contains(lines[1], one.LocalAddr().String()) || !strings.Contains(lines[1], "none / 1.3") {
		t.Fatalf("the table: %v", table)
	}
	var list struct {
		Connections []struct {
			ID, Listener, State string
			Server              struct {
				TLS struct{ OwnSha256Fingerprint string }
			}
		}
	}
	if r := g.cli("connections", "-o", "json"); json.Unmarshal([]byte(r.stdout), &list) != nil || len(list.Connections) != 2 {
		t.Errorf("as JSON: %v", r)
	}
	listeners := map[string]bool{} // the connection made first may be accepted last
	for _, c := range list.Connections {
		listeners[c.Listener] = c.State == "ACTIVE" && c.Server.TLS.OwnSha256Fingerprint == fingerprint(a.client)
	}
	if !listeners["one"] || !listeners["two"] {
		t.Errorf("as JSON: %+v", list)
	}
	if r := g.cli("connections", "--close"); r.code != 2 || !strings.Contains(r.stderr, "--all") {
		t.Errorf("closing without a selection: %v", r)
	}
	if r := g.cli("connections", "--listener", "one", "--close"); r.code != 0 || r.stdout != "1 connection closed.\n" {
		t.Errorf("closing: %v", r)
	}
	if _, err := one.Read(make([]byte, 1)); err == nil {
		t.Error("the closed connection is still open")
	}
	if err := pingPong(two, "again"); err != nil {
		t.Errorf("the other connection: %v", err)
	}
	// If its output is a pipe, top prints plain tables.
	r := g.cli("top", "--count", "2", "--interval", "100ms", "--view", "connections")
	if r.code != 0 || strings.Count(r.stdout, "SENT/S") != 2 || !strings.Contains(r.stdout, two.LocalAddr().String()) || strings.Contains(r.stdout, "\x1b") {
		t.Errorf("top in a pipe: %v", r)
	}
}

func TestTopRestoresTheTerminal(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	for name, end := range map[string]func(keyboard *os.File, p *os.Process) error{
		"q":      func(keyboard *os.File, _ *os.Process) error { _, err := keyboard.WriteString("urs/x\rq"); return err },
		"Ctrl-C": func(keyboard *os.File, _ *os.Process) error { _, err := keyboard.WriteString("\x03"); return err },
		"term":   func(_ *os.File, p *os.Process) error { return p.Signal(syscall.SIGTERM) },
		"hangup": func(_ *os.File, p *os.Process) error { return p.Signal(syscall.SIGHUP) },
		"the end of the gateway": func(*os.File, *os.Process) error {
			g.stop()
			return nil
		},
	} {
		if name == "the end of the gateway" {
			defer topInTerminal(t, g, name, end) // last
			continue
		}
		topInTerminal(t, g, name, end)
	}
}

// topInTerminal runs top in a terminal, ends it, and compares the terminal's mode.
func topInTerminal(t *testing.T, g *gateway, name string, end func(keyboard *os.File, p *os.Process) error) {
	keyboard, terminal := openTerminal(t)
	before, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program(t), "top", "--admin", "unix:"+g.socket, "--interval", "100ms")
	var stderr strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	shown, ended := new(output), make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(shown, keyboard) // fails once the terminal is closed
	}()
	eventually(t, name+": a table", func() bool { return shown.contains("LISTENER") })
	during, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil || during.Lflag&unix.ICANON != 0 {
		t.Errorf("%s: the terminal still reads lines: %v", name, err)
	}
	if err := end(keyboard, cmd.Process); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if failed := name == "the end of the gateway"; (err != nil) != failed {
		t.Errorf("%s: top ended with %v\n%s", name, err, stderr.String())
	}
	after, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("%s: the mode was %+v and is %+v, %v", name, before, after, err)
	}
	eventually(t, name+": the screen and the cursor are back", func() bool { return shown.contains("\x1b[?25h\x1b[?1049l") })
	terminal.Close()
	keyboard.Close()
	<-ended
}
