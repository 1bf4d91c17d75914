package fileroot

import (
	"hash/maphash"
	"io/fs"
	"sync"
)

// A Survey looks at many paths in one pass. It looks at each root, directory and symlink
// only once, so a Trace may be as old as the Survey. Its methods may be called
// concurrently, and a call that hangs on a file system does not delay other calls.
type Survey struct {
	places places

	mu   sync.Mutex
	seen map[string]look // directories and symlinks
}

// Survey begins a pass. It resolves the roots, which may hang.
func (r Roots) Survey() *Survey { return &Survey{places: r.resolve(), seen: map[string]look{}} }

// A Trace holds what the file system reports about a path without reading the file.
// Traces are comparable, within one process.
type Trace struct {
	// Stamp changes when the path leads to another file, and when the file or its
	// attributes change. File systems keep times in ticks: a file that changes twice in one
	// tick may have the same Stamp.
	Stamp uint64

	// Way changes when a directory or symlink on the way changes, or is replaced by another
	// one of the same name.
	Way uint64

	// Device is the file system of the file, or 0 if the path leads to no file.
	Device uint64
}

// Trace follows a path without reading the file.
func (s *Survey) Trace(path string) Trace {
	var sum maphash.Hash
	sum.SetSeed(seed)
	var t Trace
	s.places.walk(path, func(name string) look {
		l := s.look(name)
		if l.err == nil && l.mode.IsRegular() {
			t.Device, t.Way = l.device, sum.Sum64()
		}
		l.addTo(&sum, name)
		return l
	}, nil)
	t.Stamp = sum.Sum64()
	if t.Device == 0 {
		t.Way = t.Stamp
	}
	return t
}

// Steps returns the symlinks and directories along a path whose change may change the
// path's target or its content. Each is an absolute path whose directory has no
// symlinks. Outside the roots, it returns only symlinks that lead to a root.
func (s *Survey) Steps(path string) []string {
	var steps steps
	w := s.places.walk(path, s.look, &steps)
	if w.err == ErrOutside {
		return steps.inside
	}
	return append(steps.links, steps.inside...)
}

// seed makes stamps unpredictable, so that an attacker cannot create a file with the
// stamp of another file.
var seed = maphash.MakeSeed()

// look calls lookAt only once for each directory and symlink.
func (s *Survey) look(name string) look {
	s.mu.Lock()
	l, ok := s.seen[name]
	s.mu.Unlock()
	if ok {
		return l
	}
	l = lookAt(name) // without the lock, because it may hang
	if l.err == nil && l.mode&(fs.ModeDir|fs.ModeSymlink) != 0 {
		s.mu.Lock()
		s.seen[name] = l
		s.mu.Unlock()
	}
	return l
}
