package files

import (
	"hash/crc32"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
)

// A watched is a path of a live resource, with its last trace.
type watched struct {
	path  string
	refs  []store.Ref // the resources that use the path
	trace fileroot.Trace
	steps []string // the names along the path to watch

	// since is when the current stamp was first seen. confirmed reports whether the file
	// was read again long after that: two changes within a tick of the file system's clock
	// have the same stamp, and the first read may have been between them.
	since     time.Time
	confirmed bool
}

// seen records the current trace of the path. It reports whether the path leads to
// another or a changed file.
func (p *watched) seen(t fileroot.Trace) bool {
	same := p.trace.Stamp == t.Stamp && !p.since.IsZero()
	p.trace = t
	if !same {
		p.since, p.confirmed = time.Now(), false
	}
	return !same
}

// leadsElsewhere reports whether a directory or symlink along the path has changed since
// the last trace.
func (p *watched) leadsElsewhere(now fileroot.Trace) bool {
	return p.since.IsZero() || p.trace.Way != now.Way
}

// turn returns the number of the poll, out of readEvery, that reads the file even if its
// attributes are unchanged. It is the same for all files of a resource.
func (p *watched) turn() int { return int(crc32.ChecksumIEEE([]byte(p.refs[0].Name)) % readEvery) }

// A pathSet is the paths of the live resources.
type pathSet struct {
	paths map[string]*watched
	users map[store.Ref][]*watched
	dirs  [][]*watched // grouped by directory, because a hanging file system delays all paths in one directory
	all   []store.Ref
}

// update replaces the paths of the set with files. It returns the new paths, the resources
// that use a path for the first time, and whether the set changed.
func (s *pathSet) update(files map[string][]store.Ref) (fresh []*watched, users []store.Ref, changed bool) {
	paths := make(map[string]*watched, len(files))
	changed = len(files) != len(s.paths)
	for path, refs := range files {
		p := s.paths[path]
		switch {
		case p == nil:
			p = &watched{path: path, refs: refs}
			fresh, users, changed = append(fresh, p), append(users, refs...), true
		case !slices.Equal(p.refs, refs):
			for _, ref := range refs {
				if !slices.Contains(p.refs, ref) {
					users = append(users, ref)
				}
			}
			p.refs, changed = refs, true
		}
		paths[path] = p
	}
	if !changed {
		return nil, nil, false
	}
	s.paths, s.users, s.dirs = paths, map[store.Ref][]*watched{}, nil
	for _, p := range paths {
		for _, ref := range p.refs {
			s.users[ref] = append(s.users[ref], p)
		}
	}
	s.all = slices.Collect(maps.Keys(s.users))
	s.dirs = byDirectory(slices.SortedFunc(maps.Values(paths), comparePaths))
	return fresh, users, true
}

// of returns the paths of resources.
func (s *pathSet) of(refs []store.Ref) []*watched {
	var out []*watched
	for _, ref := range refs {
		out = append(out, s.users[ref]...)
	}
	slices.SortFunc(out, comparePaths)
	return slices.Compact(out)
}

func comparePaths(a, b *watched) int {
	if c := strings.Compare(filepath.Dir(a.path), filepath.Dir(b.path)); c != 0 {
		return c
	}
	return strings.Compare(a.path, b.path)
}

// byDirectory groups sorted paths.
func byDirectory(sorted []*watched) [][]*watched {
	var out [][]*watched
	for i, p := range sorted {
		if i == 0 || filepath.Dir(p.path) != filepath.Dir(sorted[i-1].path) {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], p)
	}
	return out
}
