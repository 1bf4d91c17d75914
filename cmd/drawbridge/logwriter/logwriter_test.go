package logwriter

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
)

// blocked is an output that blocks until release is closed.
type blocked struct {
	bytes.Buffer
	release chan struct{}
}

func (b *blocked) Write(p []byte) (int, error) {
	<-b.release
	return b.Buffer.Write(p)
}

func TestWriteNeverBlocksAndCountsDroppedLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &blocked{release: make(chan struct{})}
		w := New(out)
		line := []byte(strings.Repeat("x", 1023) + "\n")
		w.Write(line) // this line is being written
		synctest.Wait()
		const fits = logBuffer / 1024
		for range fits + 10 {
			w.Write(line)
		}
		if w.Dropped() != 10 {
			t.Errorf("%d lines were dropped", w.Dropped())
		}
		w.Close() // returns after logFlush
		w.Write(line)
		if w.Dropped() != 11 {
			t.Errorf("%d lines were dropped", w.Dropped())
		}
		close(out.release)
		<-w.done
		if n := out.Len(); n != (fits+1)*1024 {
			t.Errorf("%d bytes were written in the end", n)
		}
	})
}

func TestTheLastLinesAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := New(&out)
		for range 100 {
			w.Write([]byte("line\n"))
		}
		w.Close()
		if n := strings.Count(out.String(), "\n"); n != 100 {
			t.Errorf("%d lines", n)
		}
	})
}
