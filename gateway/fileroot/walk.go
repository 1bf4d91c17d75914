package fileroot

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links a path may lead through, as in Linux.
const maxLinks = 40

// A way is where a path leads, and by what.
type way struct {
	end  string      // the path without links
	root string      // the root it is below, without links
	info fs.FileInfo // nil: a directory

	// err is why it leads nowhere, or not to where it may; then the fields above
	// are not set.
	err error

	// steps are the names of which a change may change where the path leads,
	// each in a directory that was there.
	steps []string
}

// Trace returns the names on the way of a path, links and directories alike,
// whose change may change where it leads or what is there: each is an absolute
// path whose directory has no links in it. Of what lies outside of the roots
// there are only the links by which the path gets to a root.
func (r Roots) Trace(path string) []string { return r.resolve().walk(path).steps }

// places are roots as they are now.
type places struct {
	there   []string // without links
	missing []string // roots that are not there
}

func (r Roots) resolve() places {
	var p places
	for _, root := range r {
		if real, err := filepath.EvalSymlinks(root); err == nil {
			p.there = append(p.there, real)
		} else {
			p.missing = append(p.missing, filepath.Clean(root))
		}
	}
	return p
}

// walk follows a path as the kernel would.
func (p places) walk(path string) way {
	if !filepath.IsAbs(path) {
		return way{err: ErrOutside}
	}
	path = filepath.Clean(path)
	var w way
	var links []string // steps outside of the roots
	at, rest := "/", parts(path)
	for followed := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at, w.info = filepath.Dir(at), nil // at has no links: this is what the kernel does
			continue
		}
		next := filepath.Join(at, name)
		inside := rootOf(p.there, next) != "" || slices.Contains(p.missing, next)
		if inside {
			w.steps = append(w.steps, next)
		}
		info, err := os.Lstat(next)
		if err == nil && info.Mode()&fs.ModeSymlink != 0 {
			var target string
			if target, err = os.Readlink(next); err == nil {
				if followed++; followed > maxLinks {
					err = syscall.ELOOP
				} else {
					if !inside {
						links = append(links, next)
					}
					if filepath.IsAbs(target) {
						at = "/"
					}
					rest = append(parts(target), rest...)
					continue
				}
			}
		}
		if err != nil {
			if !inside && rootOf(p.missing, path) == "" {
				return way{err: ErrOutside, steps: w.steps}
			}
			return way{err: cause(err), steps: append(links, w.steps...)}
		}
		at, w.info = next, info
	}
	root := rootOf(p.there, at)
	if root == "" {
		return way{err: ErrOutside, steps: w.steps}
	}
	w.end, w.root, w.steps = at, root, append(links, w.steps...)
	return w
}

// rootOf returns the root that path is or is below; empty if there is none.
func rootOf(roots []string, path string) string {
	for _, root := range roots {
		below, ok := strings.CutPrefix(path, root)
		if ok && (below == "" || below[0] == '/' || root == "/") {
			return root
		}
	}
	return ""
}

// parts returns the names that a path is made of.
func parts(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(name string) bool { return name == "" || name == "." })
}
