// Package logtest keeps the logs of tests.
package logtest

import (
	"bytes"
	"sync"
)

// A Buffer is an io.Writer that keeps what is written. The zero Buffer is empty. Its
// methods may be called concurrently: a test reads a log while it is written.
type Buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write appends p. It never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String returns what was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
