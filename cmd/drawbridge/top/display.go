package top

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/command"
)

// A display shows tables and reads keys.
type display interface {
	show(lines []string) error

	// key waits for a key until the given time, and reports whether a key was
	// pressed.
	key(ctx context.Context, until time.Time) (key rune, pressed bool)

	// close restores the terminal.
	close() error
}

// quit is the key that ends the command. Ctrl-C is a key, not a signal, while the terminal is in
// raw mode.
const quit = 'q'

// openDisplay returns a screen if the output is a terminal, and otherwise a display that
// prints one table after another.
func openDisplay(e *command.Env) (display, error) {
	out, in := fileOf(e.Out), fileOf(e.In)
	if out == nil || !term.IsTerminal(int(out.Fd())) {
		return &printer{out: e.Out}, nil
	}
	t := &terminalDisplay{out: out}
	if in != nil && term.IsTerminal(int(in.Fd())) {
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return nil, err
		}
		t.in, t.before = in, before
	}
	// Switch to the alternate screen, so that close can restore the old contents, and
	// hide the cursor.
	if _, err := io.WriteString(out, "\x1b[?1049h\x1b[?25l"); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// A printer prints one table after another.
type printer struct {
	out   io.Writer
	shown bool
}

func (p *printer) show(lines []string) error {
	var text bytes.Buffer
	if p.shown {
		text.WriteByte('\n')
	}
	p.shown = true
	for _, line := range lines {
		text.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := p.out.Write(text.Bytes())
	return err
}

func (p *printer) key(ctx context.Context, until time.Time) (rune, bool) {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return 0, false
}

func (p *printer) close() error { return nil }

// A terminalDisplay fills a terminal.
type terminalDisplay struct {
	out     *os.File
	in      *os.File    // nil: there is no keyboard
	before  *term.State // the mode to restore
	pending []byte      // keys that were read but not yet returned
}

func (t *terminalDisplay) show(lines []string) error {
	width, height, err := term.GetSize(int(t.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	var text bytes.Buffer
	text.WriteString("\x1b[H")
	for i, line := range lines {
		if i == height {
			break
		}
		if i > 0 {
			text.WriteString("\r\n")
		}
		text.WriteString(fit(line, width) + "\x1b[0m\x1b[K") // clear the rest of the line
	}
	text.WriteString("\x1b[J") // clear everything below
	_, err = t.out.Write(text.Bytes())
	return err
}

// fit returns the part of a line that fits into a width. Color codes have no
// width.
func fit(line string, width int) string {
	n := 0
	for i := 0; i < len(line); {
		if line[i] == '\x1b' {
			if end := strings.IndexByte(line[i:], 'm'); end >= 0 {
				i += end + 1
				continue
			}
		}
		if n == width {
			return line[:i]
		}
		_, size := utf8.DecodeRuneInString(line[i:])
		i += size
		n++
	}
	return line
}

// pollFor is the longest time that a wait for a key continues after ctx has ended.
const pollFor = 50 * time.Millisecond

func (t *terminalDisplay) key(ctx context.Context, until time.Time) (rune, bool) {
	for len(t.pending) == 0 {
		left := time.Until(until)
		if left <= 0 || ctx.Err() != nil {
			return 0, false
		}
		wait := min(left, pollFor)
		if t.in == nil {
			time.Sleep(wait)
			continue
		}
		ready := []unix.PollFd{{Fd: int32(t.in.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, int(wait/time.Millisecond)+1)
		if err == unix.EINTR || err == nil && n == 0 {
			continue
		}
		buf := make([]byte, 64)
		if err == nil {
			n, err = unix.Read(int(t.in.Fd()), buf)
		}
		if err != nil || n == 0 { // the terminal is gone
			return quit, true
		}
		t.pending = buf[:n]
	}
	key, size := utf8.DecodeRune(t.pending)
	t.pending = t.pending[size:]
	switch key {
	case ctrlC:
		key = quit
	case escape:
		t.pending = nil // the rest of an escape sequence, for example of an arrow key
	}
	return key, true
}

// Keys that are control characters.
const (
	ctrlC     = 3
	backspace = 8
	enter     = '\r'
	escape    = 27
	erase     = 127
)

func (t *terminalDisplay) close() error {
	_, err := io.WriteString(t.out, "\x1b[?25h\x1b[?1049l")
	if t.before != nil {
		err = errors.Join(err, term.Restore(int(t.in.Fd()), t.before))
	}
	return err
}
