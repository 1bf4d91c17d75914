package audit

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// A file is a regular file that whole lines are appended to.
type file struct {
	path        string
	f           *os.File
	endsMidLine bool // the file ends inside a line
}

// open opens or reopens the file. If it fails, the file stays as it was.
func (f *file) open() error {
	// Without O_NONBLOCK, a FIFO would block until it has a reader.
	next, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	info, err := next.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", f.path)
	}
	if err != nil {
		return errors.Join(err, next.Close())
	}
	f.close()
	f.f, f.endsMidLine = next, false
	return nil
}

func (f *file) close() {
	if f.f != nil {
		f.f.Close()
	}
}

// append writes lines, and with sync waits until they are on disk. If it fails, it
// removes the part that was written.
func (f *file) append(lines []byte, sync bool) error {
	info, err := f.f.Stat()
	if err != nil {
		return err
	}
	if f.endsMidLine {
		lines = append([]byte("\n"), lines...)
	}
	n, err := f.f.Write(lines)
	if err == nil && sync {
		err = f.f.Sync()
	}
	if err != nil {
		if n > 0 {
			f.endsMidLine = f.f.Truncate(info.Size()) != nil && lines[n-1] != '\n' || f.endsMidLine
		}
		return err
	}
	f.endsMidLine = false
	return nil
}
