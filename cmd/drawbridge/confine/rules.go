package confine

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Rights are the operations that the process may perform on the files in a directory.
type Rights = landlock.AccessFSSet

// The sets of rights that Rules gives.
const (
	read    Rights = ll.AccessFSReadFile | ll.AccessFSReadDir
	execute Rights = read | ll.AccessFSExecute
	device  Rights = ll.AccessFSReadFile | ll.AccessFSWriteFile

	// logs allows creating files and appending to them.
	logs Rights = ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg

	// replace allows writing a new file, moving it over the old one, and removing
	// it.
	replace Rights = logs | ll.AccessFSReadFile | ll.AccessFSRemoveFile

	// sockets allows binding unix sockets and removing their files.
	sockets Rights = ll.AccessFSMakeSock | ll.AccessFSRemoveFile

	// private allows binding a socket in a new directory and then linking it to its
	// path.
	private Rights = sockets | read | ll.AccessFSMakeDir | ll.AccessFSRemoveDir | ll.AccessFSRefer

	store Rights = private | replace
)

// fileRights are the rights that a rule for a single file can give.
const fileRights Rights = ll.AccessFSExecute | ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSIoctlDev

// all are the rights that Landlock denies unless a rule grants them.
const all Rights = 1<<16 - 1

// A Rule gives rights to a file, or to everything below a directory.
type Rule struct {
	Path   string
	Rights Rights
}

// Paths are the absolute paths that a gateway uses. Empty paths are ignored.
type Paths struct {
	DataDir     string
	FileRoots   []string
	AdminSocket string

	// Files are files that the flags name. They are read at the start, on signals and at
	// the start of an upgrade.
	Files []string

	// Dirs are directories of such files.
	Dirs []string

	Logs    []string // files that SIGUSR1 opens again
	PIDFile string

	// Program is the program of the process. ProgramRoots are the directories of programs for
	// upgrades; empty: the directory of Program.
	Program      string
	ProgramRoots []string
	Dynamic      bool // Program is linked to shared libraries

	// Resolve returns the path with its symlinks resolved, or "". Nil: no path is a link.
	Resolve func(path string) string
}

// Rules returns the rules that a gateway needs, in the order of their paths. If another
// program may replace a file, its rule is for the directory, because the kernel's rules
// apply to inodes, not to names.
func Rules(p Paths) []Rule {
	out := ruleSet{}
	out.add(read, systemDirs...)
	out.add(device, "/dev/null")
	out.add(ll.AccessFSReadFile, "/dev/urandom")
	// Listeners may have unix sockets anywhere, and may be added at any time.
	out.add(sockets, "/")

	out.add(store, p.DataDir)
	out.add(read, p.FileRoots...)
	out.add(read, p.Dirs...)
	out.add(read, p.dirsOf(systemFiles...)...)
	out.add(read, p.dirsOf(p.Files...)...)
	for _, dir := range p.dirsOf(p.Logs...) {
		if !below(dir, "/dev") && !below(dir, "/proc") { // a log may be a device, such as /dev/stdout
			out.add(logs, dir)
		}
	}
	out.add(logs&fileRights, p.Logs...)
	out.add(replace, p.dirsOf(p.PIDFile)...)
	if p.AdminSocket != "" {
		out.add(private, filepath.Dir(p.AdminSocket))
	}
	out.add(execute, p.programs()...)
	if p.Dynamic {
		out.add(execute, libraryDirs...)
	}
	return out.sorted()
}

// below reports whether a directory is another one or below it.
func below(dir, top string) bool {
	rel, err := filepath.Rel(top, dir)
	return err == nil && filepath.IsLocal(rel)
}

// programs returns the directories of programs for upgrades.
func (p Paths) programs() []string {
	if len(p.ProgramRoots) > 0 {
		return p.ProgramRoots
	}
	return p.dirsOf(p.Program)
}

// dirsOf returns the directories of files, and of the files that they are links to.
func (p Paths) dirsOf(files ...string) []string {
	var out []string
	for _, f := range files {
		if f == "" {
			continue
		}
		out = append(out, filepath.Dir(f))
		if p.Resolve == nil {
			continue
		}
		if target := p.Resolve(f); target != "" {
			out = append(out, filepath.Dir(target))
		}
	}
	return out
}

// systemDirs are read by package net, package os/user, the Go runtime and package certs.
// They include all of /etc, because editors and network managers replace
// /etc/resolv.conf, /etc/hosts and /etc/group with new files.
var systemDirs = []string{
	"/etc", "/proc", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage",
	"/usr/share/zoneinfo", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
}

// systemFiles are often links to directories outside /etc.
var systemFiles = []string{
	"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime",
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/pki/tls/cacert.pem", "/etc/ssl/cert.pem",
}

var libraryDirs = []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64"}

// A ruleSet maps paths to rights.
type ruleSet map[string]Rights

func (s ruleSet) add(r Rights, paths ...string) {
	for _, path := range paths {
		if path != "" {
			s[filepath.Clean(path)] |= r
		}
	}
}

func (s ruleSet) sorted() []Rule {
	out := make([]Rule, 0, len(s))
	for _, path := range slices.SortedFunc(maps.Keys(s), cmp.Compare[string]) {
		out = append(out, Rule{path, s[path]})
	}
	return out
}
