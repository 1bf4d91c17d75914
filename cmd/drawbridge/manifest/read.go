package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
)

// LoadConfig reads and parses one file or directory, as Load does. It accepts only
// regular files, because a read of a FIFO could wait forever.
func LoadConfig(path string) (*Manifest, error) { return load(nil, true, path) }

// Load reads and parses files. A path is a file, "-" for stdin, or a directory,
// which means its *.yaml, *.yml and *.json files in the order of their names.
// An error is Faults.
func Load(stdin io.Reader, paths ...string) (*Manifest, error) { return load(stdin, false, paths...) }

func load(stdin io.Reader, regular bool, paths ...string) (*Manifest, error) {
	var (
		sources []Source
		faults  Faults
	)
	for _, p := range paths {
		files, err := expandPath(p)
		if err != nil {
			faults = append(faults, Fault{Place: Place{File: p}, Message: plain(err)})
		}
		for _, f := range files {
			src, err := read(stdin, f, regular)
			if err != nil {
				faults = append(faults, Fault{Place: Place{File: f}, Message: plain(err)})
				continue
			}
			sources = append(sources, src)
		}
	}
	m, err := Parse(sources...)
	if more, ok := errors.AsType[Faults](err); ok {
		faults = append(faults, more...)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return m, nil
}

func expandPath(path string) ([]string, error) {
	if path == "-" {
		return []string{path}, nil
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return []string{path}, nil // read reports the error
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		switch strings.ToLower(filepath.Ext(e.Name())) {
		case ".yaml", ".yml", ".json":
			if !e.IsDir() {
				files = append(files, filepath.Join(path, e.Name()))
			}
		}
	}
	if len(files) == 0 {
		return nil, errors.New("the directory holds no *.yaml, *.yml or *.json")
	}
	sort.Strings(files)
	return files, nil
}

// read reads one file, up to one byte more than the limit.
func read(stdin io.Reader, path string, regular bool) (Source, error) {
	src := Source{Name: path, Dir: filepath.Dir(path)}
	if path == "-" {
		src.Name, src.Dir = "<stdin>", "."
	} else {
		mode := os.O_RDONLY
		if regular {
			mode |= syscall.O_NONBLOCK // opening a FIFO must not wait for its writer
		}
		f, err := os.OpenFile(path, mode, 0)
		if err != nil {
			return src, err
		}
		defer f.Close()
		if info, err := f.Stat(); regular && (err != nil || !info.Mode().IsRegular()) {
			return src, errors.New("not a regular file")
		}
		stdin = f
	}
	var err error
	if src.Dir, err = filepath.Abs(src.Dir); err != nil {
		return src, err
	}
	src.Data, err = io.ReadAll(io.LimitReader(stdin, MaxSize+1))
	return src, err
}

// plain removes "open /path:" from an error whose path is reported separately.
func plain(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Sprintf("cannot %s: %v", p.Op, p.Err)
	}
	return err.Error()
}
