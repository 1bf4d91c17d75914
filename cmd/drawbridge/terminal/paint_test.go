package terminal

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// A command that cron or systemd starts has the null device as its input and output. It
// must not wait for a user.
func TestOnlyTerminalsAreDetectedAsTerminals(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	for name, stream := range map[string]any{"the null device": null, "a file": file, "a pipe": out, "a buffer": new(bytes.Buffer)} {
		if IsTerminal(stream) {
			t.Errorf("%s is taken for a terminal", name)
		}
	}
}
