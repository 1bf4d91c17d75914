package fileroot

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// maxLinks bounds the symlinks along a path, as in Linux.
const maxLinks = 40

// A resolvedPath says where a path leads.
type resolvedPath struct {
	end  string      // the path with symlinks resolved
	root string      // the root it is below, with symlinks resolved
	info fs.FileInfo // nil: a directory

	// err is why the path cannot be resolved or used; the fields above are then not
	// set.
	err error

	// steps are as in Trace.
	steps []string
}

// places are roots, resolved at one moment.
type places struct {
	present []string // with symlinks resolved
	missing []string // roots that do not exist
}

func (r Roots) resolve() places {
	var p places
	for _, root := range r {
		if real, err := filepath.EvalSymlinks(root); err == nil {
			p.present = append(p.present, real)
		} else {
			p.missing = append(p.missing, filepath.Clean(root))
		}
	}
	return p
}

// walk follows a path as the kernel would. It looks at each name on the way with lookAt.
func (p places) walk(path string, lookAt func(name string) look) resolvedPath {
	if !filepath.IsAbs(path) {
		return resolvedPath{err: ErrOutside}
	}
	path = filepath.Clean(path)
	var w resolvedPath
	var links []string // steps outside the roots
	at, rest := "/", parts(path)
	for followed := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at, w.info = filepath.Dir(at), nil // correct because at has no symlinks
			continue
		}
		next := filepath.Join(at, name)
		inside := rootOf(p.present, next) != "" || slices.Contains(p.missing, next)
		if inside {
			w.steps = append(w.steps, next)
		}
		l := lookAt(next)
		err := l.err
		if err == nil && l.info.Mode()&fs.ModeSymlink != 0 {
			if followed++; followed > maxLinks {
				err = syscall.ELOOP
			} else {
				if !inside {
					links = append(links, next)
				}
				if filepath.IsAbs(l.target) {
					at = "/"
				}
				rest = append(parts(l.target), rest...)
				continue
			}
		}
		if err != nil {
			if !inside && rootOf(p.missing, path) == "" {
				return resolvedPath{err: ErrOutside, steps: w.steps}
			}
			return resolvedPath{err: cause(err), steps: append(links, w.steps...)}
		}
		at, w.info = next, l.info
	}
	root := rootOf(p.present, at)
	if root == "" {
		return resolvedPath{err: ErrOutside, steps: w.steps}
	}
	w.end, w.root, w.steps = at, root, append(links, w.steps...)
	return w
}

// rootOf returns the root that path equals or is below, or "" if it is below no root.
func rootOf(roots []string, path string) string {
	for _, root := range roots {
		below, ok := strings.CutPrefix(path, root)
		if ok && (below == "" || below[0] == '/' || root == "/") {
			return root
		}
	}
	return ""
}

// parts returns the names in a path.
func parts(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(name string) bool { return name == "" || name == "." })
}
