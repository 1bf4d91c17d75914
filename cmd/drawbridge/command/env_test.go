package command

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
)

func TestTheDefaultDataDirectory(t *testing.T) {
	for _, tt := range []struct {
		uid               int
		state, home, want string
	}{
		{0, "/state", "/root", "/var/lib/drawbridge"},
		{1, "/state", "/home/u", "/state/drawbridge"},
		{1, "relative", "/home/u", "/home/u/.local/state/drawbridge"},
		{1, "", "/home/u", "/home/u/.local/state/drawbridge"},
		{1, "", "", ""},
	} {
		env := map[string]string{"XDG_STATE_HOME": tt.state, "HOME": tt.home}
		c := &Env{UID: tt.uid, LookupEnv: func(k string) (string, bool) { v, ok := env[k]; return v, ok }}
		if got := c.DefaultDataDir(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestOnlyATerminalIsColored(t *testing.T) {
	device, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("this machine has no pseudo-terminals: %v", err)
	}
	defer device.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	reader, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer pipe.Close()
	for _, tt := range []struct {
		name string
		env  map[string]string
		w    io.Writer
		want terminal.Paint
	}{
		{"a terminal", nil, device, true},
		{"a terminal with an empty NO_COLOR", map[string]string{"NO_COLOR": ""}, device, true},
		{"a terminal with NO_COLOR", map[string]string{"NO_COLOR": "1"}, device, false},
		{"a dumb terminal", map[string]string{"TERM": "dumb"}, device, false},
		{"a file", nil, file, false},
		{"a pipe", nil, pipe, false},
		{"memory", nil, &bytes.Buffer{}, false},
	} {
		c := &Env{LookupEnv: func(name string) (string, bool) { v, ok := tt.env[name]; return v, ok }}
		if got := c.Paint(tt.w); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
