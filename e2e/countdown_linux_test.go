// On a terminal, a change with --confirm-within shows a countdown and the failures
// since, as in docs/changing-safely.md. Enter confirms the change.

package e2e

import (
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// openTerminal returns the two ends of a pseudo-terminal.
func openTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this machine has no pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	fd := int(person.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err := errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

// A session is a command that runs on a terminal.
type session struct {
	cmd    *exec.Cmd
	person *os.File
	shown  *output
	ended  chan struct{}
}

func (g *gateway) session(args ...string) *session {
	g.t.Helper()
	t := g.t.(*testing.T)
	person, terminal := openTerminal(t)
	s := &session{cmd: exec.CommandContext(t.Context(), program(t), args...), person: person, shown: &output{}, ended: make(chan struct{})}
	s.cmd.Env = append(os.Environ(), "DRAWBRIDGE_ADMIN=unix:"+g.socket, "TERM=xterm", "NO_COLOR=")
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = terminal, terminal, terminal
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	terminal.Close() // so that reads end with the command
	go func() {
		defer close(s.ended)
		io.Copy(s.shown, person) // fails with EIO when the command has ended
	}()
	t.Cleanup(func() { s.cmd.Process.Kill(); <-s.ended })
	return s
}

// wait returns the exit code.
func (s *session) wait() int {
	<-s.ended
	s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode()
}

var (
	control  = regexp.MustCompile(`\x1b\[[0-9;]*[mK]|\r`)
	timeLeft = regexp.MustCompile(`^[0-9msh]+  `)
	number   = regexp.MustCompile(`[0-9]+`)
)

// shape returns a line without colors, and without the parts that vary between
// runs.
func shape(line string) string {
	line = control.ReplaceAllString(strings.TrimSpace(line), "")
	return number.ReplaceAllString(timeLeft.ReplaceAllString(printedTime.ReplaceAllString(line, "TIME"), "LEFT  "), "N")
}

// shows reports whether the terminal has shown a line of each of these shapes, even if a
// later line has replaced it.
func (s *session) shows(want []string) bool {
	shown := map[string]bool{}
	for _, line := range strings.FieldsFunc(s.shown.String(), func(r rune) bool { return r == '\r' || r == '\n' }) {
		shown[shape(line)] = true
	}
	return !slices.ContainsFunc(want, func(line string) bool { return !shown[line] })
}

func TestTheCountdownMatchesThePage(t *testing.T) {
	t.Parallel()
	page := readPage(t, "../docs/changing-safely.md")
	// onPage returns the shapes of the example lines on the page that contain
	// text.
	onPage := func(text string) (lines []string) {
		t.Helper()
		for line := range strings.Lines(page) {
			if strings.HasPrefix(line, "    ") && strings.Contains(line, text) {
				lines = append(lines, shape(line))
			}
		}
		if len(lines) == 0 {
			t.Fatalf("the page does not show %q", text)
		}
		return lines
	}
	g := startGateway(t)
	const refused = "127.0.0.1:1"
	g.apply(plainUpstream("payments", refused), listener("payments", protocolHTTP, "payments"))
	url := "http://" + g.address("payments") + "/"
	change := func(comment string) string {
		file := filepath.Join(t.TempDir(), "payments.yaml")
		writeFile(t, file, []byte("kind: Upstream\nname: payments\nlabels: {why: "+comment+"}\nendpoints: [{address: \""+refused+"\"}]\nplaintext: {}\n"))
		return file
	}

	s := g.session("apply", "-f", change("confirmed"), "--confirm-within", "2m")
	eventually(t, "the deadline is shown", func() bool { return s.shows(onPage("unless you confirm: drawbridge confirm")) })
	eventually(t, "the countdown begins", func() bool { return s.shows(onPage("failures: none")) })
	eventually(t, "the countdown shows what fails", func() bool {
		if resp, err := http.Get(url); err == nil {
			resp.Body.Close()
		}
		return s.shows(onPage("Enter confirms"))
	})
	if _, err := s.person.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(); code != 0 || !s.shows(onPage("Revision 4 is confirmed.")) {
		t.Errorf("exit code %d:\n%s", code, s.shown)
	}
	if s := g.getStatus(); s.GetPending() != nil || s.GetRevision() != 2 {
		t.Errorf("revision %d, pending %v", s.GetRevision(), s.GetPending())
	}

	s = g.session("apply", "-f", change("unconfirmed"), "--confirm-within", "2s")
	if code := s.wait(); code != 5 || !s.shows(onPage("was not confirmed")) {
		t.Errorf("exit code %d:\n%s", code, s.shown)
	}
	u, err := g.admin.GetUpstream(longContext(t), &adminv1.GetUpstreamRequest{Name: "payments"})
	if err != nil || u.GetLabels()["why"] != "confirmed" {
		t.Errorf("%v, %v", u, err)
	}
}
