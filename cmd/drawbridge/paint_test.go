package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestOnlyATerminalIsColored(t *testing.T) {
	// /dev/null is a character device like a terminal.
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
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
		want paint
	}{
		{"a terminal", nil, device, true},
		{"a terminal, NO_COLOR empty", map[string]string{"NO_COLOR": ""}, device, true},
		{"a terminal, NO_COLOR", map[string]string{"NO_COLOR": "1"}, device, false},
		{"a dumb terminal", map[string]string{"TERM": "dumb"}, device, false},
		{"a file", nil, file, false},
		{"a pipe", nil, pipe, false},
		{"memory", nil, &bytes.Buffer{}, false},
	} {
		c := &cli{lookupEnv: func(name string) (string, bool) { v, ok := tt.env[name]; return v, ok }}
		if got := c.paint(tt.w); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := paint(true).bad(""); got != "" {
		t.Errorf("nothing in red is %q", got)
	}
}
