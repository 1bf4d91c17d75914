package fileroot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Roots are the directories below which files are read. They are absolute, and
// need not exist yet. The zero value allows no reads.
type Roots []string

var (
	// ErrOutside reports that a path resolves outside the roots. It is the same whether or
	// not a file exists there.
	ErrOutside = errors.New("not below any of the gateway's file roots")

	// ErrChanging reports that files changed during each read.
	ErrChanging = errors.New("the file is being written: it changed during every read")
)

// MaxBytes bounds the size of a file. Larger files are rejected.
const MaxBytes = 64 << 20

// maxReads bounds how often files are read until two reads agree.
const maxReads = 6

// A File is the result of reading a file. If Err is not nil, there is no content. The
// text of Err contains neither the path nor any content.
type File struct {
	Content []byte
	Err     error
}

func (f File) equal(g File) bool {
	if f.Err != nil || g.Err != nil {
		return f.Err != nil && g.Err != nil && f.Err.Error() == g.Err.Error()
	}
	return bytes.Equal(f.Content, g.Content)
}

// ReadAll reads a consistent set of files, in the order of paths: it reads them until two
// consecutive reads are equal. Otherwise a certificate that is replaced during the read
// could be paired with the key of its successor. If the files keep changing, all of them
// fail with ErrChanging.
func (r Roots) ReadAll(paths ...string) []File {
	var last []File
	for n := range maxReads {
		now, roots := make([]File, len(paths)), r.resolve()
		same := n > 0
		for i, path := range paths {
			now[i].Content, now[i].Err = roots.read(path)
			same = same && now[i].equal(last[i])
		}
		if same {
			return now
		}
		last = now
	}
	for i := range last {
		last[i] = File{Err: ErrChanging}
	}
	return last
}

// read returns the content of a regular file.
func (p places) read(path string) ([]byte, error) {
	w := p.walk(path, lookAt, nil)
	if w.err != nil {
		return nil, w.err
	}
	// The check comes before opening, because opening alone triggers some devices.
	if !w.file {
		return nil, errNotRegular
	}
	// The path may have changed since it was resolved. os.Root still opens nothing
	// outside the root.
	root, err := os.OpenRoot(w.root)
	if err != nil {
		return nil, cause(err)
	}
	defer root.Close()
	below, err := filepath.Rel(w.root, w.end)
	if err != nil {
		return nil, ErrOutside
	}
	f, err := root.OpenFile(below, openMode, 0)
	return readRegular(f, err)
}

// openMode opens for reading. Without O_NONBLOCK, opening a FIFO would wait for its
// writer, and block the start or every later write to the gateway.
const openMode = os.O_RDONLY | syscall.O_NONBLOCK

// ReadFile reads a regular file that the command line names, which may be outside the
// roots. It fails on any other kind of file, such as a FIFO, where a read could wait
// forever.
func ReadFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, openMode, 0)
	return readRegular(f, err)
}

// readRegular reads and closes a file that was just opened. It returns err if
// opening failed.
func readRegular(f *os.File, err error) ([]byte, error) {
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, cause(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	if info.Size() > MaxBytes {
		return nil, errTooLarge
	}
	content := bytes.NewBuffer(make([]byte, 0, info.Size()+bytes.MinRead))
	if _, err := content.ReadFrom(io.LimitReader(f, MaxBytes+1)); err != nil {
		return nil, cause(err)
	}
	if content.Len() > MaxBytes { // the file grew, or reports no size, like files in /proc
		return nil, errTooLarge
	}
	return content.Bytes(), nil
}

var (
	errNotRegular = errors.New("not a regular file")
	errTooLarge   = fmt.Errorf("larger than %d bytes", MaxBytes)
)

// cause strips the operation and the path: the caller knows both, and the path may be a
// symlink's target.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
