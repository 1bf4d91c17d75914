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
	end  string // the path with symlinks resolved
	root string // the root it is below, with symlinks resolved
	file bool   // the path leads to a regular file

	// err says why the path cannot be resolved or used. The fields above are then
	// not set.
	err error
}

// steps are the names along a path whose change may change its target, each in a
// directory that existed.
type steps struct {
	inside []string // steps within the roots
	links  []string // symlinks outside the roots
}

// places are the roots, resolved at one moment.
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

// walk follows a path as the kernel would. It looks at each name on the way with lookAt,
// and appends to along, if that is not nil.
func (p places) walk(path string, lookAt func(name string) look, along *steps) resolvedPath {
	if !filepath.IsAbs(path) {
		return resolvedPath{err: ErrOutside}
	}
	path = filepath.Clean(path)
	var w resolvedPath
	at, rest := "/", path
	for followed := 0; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			at, w.file = filepath.Dir(at), false // correct because at has no symlinks
			continue
		}
		var next string
		switch {
		case followed > 0:
			next = below(at, name)
		case at == "/":
			next = path[:len(at)+len(name)]
		default:
			next = path[:len(at)+1+len(name)] // the path so far, without an allocation
		}
		inside := rootOf(p.present, next) != "" || slices.Contains(p.missing, next)
		if inside && along != nil {
			along.inside = append(along.inside, next)
		}
		l := lookAt(next)
		err := l.err
		if err == nil && l.mode&fs.ModeSymlink != 0 {
			if followed++; followed > maxLinks {
				err = syscall.ELOOP
			} else {
				if !inside && along != nil {
					along.links = append(along.links, next)
				}
				if filepath.IsAbs(l.target) {
					at = "/"
				}
				rest = l.target + "/" + rest
				continue
			}
		}
		if err != nil {
			if !inside && rootOf(p.missing, path) == "" {
				return resolvedPath{err: ErrOutside}
			}
			return resolvedPath{err: cause(err)}
		}
		at, w.file = next, l.mode.IsRegular()
	}
	root := rootOf(p.present, at)
	if root == "" {
		return resolvedPath{err: ErrOutside}
	}
	w.end, w.root = at, root
	return w
}

// below returns the path of a name in a directory.
func below(dir, name string) string {
	if dir == "/" {
		return dir + name
	}
	return dir + "/" + name
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
