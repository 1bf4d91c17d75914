package fileroot

import (
	"encoding/binary"
	"hash/maphash"
	"io/fs"
	"os"
	"sync"
)

// A Survey traces many paths in one pass. It looks at each root, directory and symlink
// only once, so a Trace may be as old as the Survey. Its methods may be called
// concurrently, and a Trace that hangs on a file system holds up no other.
type Survey struct {
	places places

	mu   sync.Mutex
	seen map[string]look // directories and symlinks
}

// Survey begins a pass. It resolves the roots, which may hang.
func (r Roots) Survey() *Survey { return &Survey{places: r.resolve(), seen: map[string]look{}} }

// A Trace says where a path leads, and what could be seen there without reading.
type Trace struct {
	// Steps are the names along the path, symlinks and directories alike, whose change may
	// change its target or the content. Each is an absolute path whose directory has no
	// symlinks. Outside the roots they are only the symlinks that lead to a root.
	Steps []string

	// Stamp changes when the path leads to another file, and when the file or its
	// attributes change. File systems keep times in ticks: a file that changes twice in one
	// tick may have the same Stamp.
	Stamp Stamp

	// Way changes when a directory or symlink on the way changes, or is replaced by another
	// one of the same name.
	Way Stamp

	// Device is the file system of the file, or 0 if the path leads to no file.
	Device uint64
}

// A Stamp is comparable, within one process.
type Stamp uint64

// Trace follows a path without reading the file.
func (s *Survey) Trace(path string) Trace {
	var sum maphash.Hash
	sum.SetSeed(seed)
	var t Trace
	w := s.places.walk(path, func(name string) look {
		l := s.look(name)
		if l.info != nil && l.info.Mode().IsRegular() {
			t.Device = identityOf(l.info).device
			t.Way = Stamp(sum.Sum64())
		}
		l.addTo(&sum, name)
		return l
	})
	t.Steps, t.Stamp = w.steps, Stamp(sum.Sum64())
	if t.Device == 0 {
		t.Way = t.Stamp
	}
	return t
}

// seed makes stamps unpredictable, so that an attacker cannot make a file with the stamp of
// another.
var seed = maphash.MakeSeed()

// look is lookAt, once for each directory and symlink.
func (s *Survey) look(name string) look {
	s.mu.Lock()
	l, ok := s.seen[name]
	s.mu.Unlock()
	if ok {
		return l
	}
	l = lookAt(name) // without the lock: it may hang
	if l.info != nil && l.info.Mode()&(fs.ModeDir|fs.ModeSymlink) != 0 {
		s.mu.Lock()
		s.seen[name] = l
		s.mu.Unlock()
	}
	return l
}

// A look is what a name is, without following it.
type look struct {
	info   fs.FileInfo // nil: err says why
	target string      // of a symlink
	err    error
}

func lookAt(name string) (l look) {
	if l.info, l.err = os.Lstat(name); l.err != nil {
		return look{err: l.err}
	}
	if l.info.Mode()&fs.ModeSymlink != 0 {
		l.target, l.err = os.Readlink(name)
	}
	return l
}

// addTo adds what distinguishes the name from what may replace it. A directory's times
// change with every file in it, so only its identity and permissions count.
func (l look) addTo(sum *maphash.Hash, name string) {
	sum.WriteString(name)
	sum.WriteByte(0)
	if l.err != nil {
		sum.WriteString(cause(l.err).Error())
		sum.WriteByte(0)
	}
	if l.info == nil {
		return
	}
	id := identityOf(l.info)
	numbers := [6]uint64{id.device, id.inode, uint64(l.info.Mode())}
	if !l.info.IsDir() {
		numbers[3], numbers[4], numbers[5] = uint64(l.info.Size()), uint64(l.info.ModTime().UnixNano()), uint64(id.changed)
	}
	var text [8 * len(numbers)]byte
	for i, n := range numbers {
		binary.LittleEndian.PutUint64(text[8*i:], n)
	}
	sum.Write(text[:])
	sum.WriteString(l.target)
	sum.WriteByte(0)
}

// An identity distinguishes a file from another one in its place.
type identity struct {
	device, inode uint64
	changed       int64 // time of the last change of its content or attributes, in ns
}
