package confine

import (
	"cmp"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Flags are the flags about confinement.
type Flags struct {
	landlock        bool
	noNewPrivileges bool
	programRoots    []string
}

// AddFlags adds the flags to a command.
func AddFlags(flags *pflag.FlagSet) *Flags {
	f := &Flags{}
	flags.BoolVar(&f.landlock, "landlock", true, "let the process open only the files that its flags name or imply, if the kernel supports Landlock")
	flags.BoolVar(&f.noNewPrivileges, "no-new-privileges", true, "prevent programs that the process starts from gaining rights, such as those of a set-user-ID program")
	flags.StringArrayVar(&f.programRoots, "program-root", nil, "`directory` below which Landlock lets upgrades run programs; may be repeated (default: the directory of this program)")
	return f
}

// Check checks the flags, and makes paths absolute.
func (f *Flags) Check() error {
	if f.landlock && !f.noNewPrivileges {
		return exit.UsageError("--no-new-privileges=false needs --landlock=false: the kernel allows Landlock only without new privileges")
	}
	for i, dir := range f.programRoots {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		if info, err := os.Stat(abs); err != nil || !info.IsDir() {
			return exit.UsageError("--program-root " + dir + ": must be a directory")
		}
		f.programRoots[i] = abs
	}
	return nil
}

// complete completes p with the program of this process, the trust roots that the
// environment names, and the links of the file system.
func (f *Flags) complete(p Paths, lookupEnv func(string) (string, bool)) Paths {
	p.ProgramRoots, p.Dynamic, p.Resolve = f.programRoots, dynamic("/proc/self/exe"), resolve
	if file, _ := lookupEnv("SSL_CERT_FILE"); file != "" {
		p.Files = append(p.Files, file)
	}
	if dirs, _ := lookupEnv("SSL_CERT_DIR"); dirs != "" {
		p.Dirs = append(p.Dirs, filepath.SplitList(dirs)...)
	}
	if dir, _ := lookupEnv("CREDENTIALS_DIRECTORY"); dir != "" {
		p.Dirs = append(p.Dirs, dir)
	}
	for _, paths := range [][]string{p.FileRoots, p.Files, p.Dirs, p.Logs} {
		for i, path := range paths {
			if abs, err := filepath.Abs(path); path != "" && err == nil {
				paths[i] = abs
			}
		}
	}
	for _, path := range []*string{&p.DataDir, &p.AdminSocket, &p.PIDFile} {
		if abs, err := filepath.Abs(*path); *path != "" && err == nil {
			*path = abs
		}
	}
	return p
}

// CheckProgram returns an error if Landlock does not let the process run a program. The
// kernel would report only a lack of permission.
func (f *Flags) CheckProgram(c *adminv1.Confinement, executable, program string) error {
	roots := Paths{ProgramRoots: f.programRoots, Program: executable, Resolve: resolve}.programs()
	target := resolve(program)
	if !c.GetLandlock() || target == "" {
		return nil
	}
	for _, root := range roots {
		if below(target, cmp.Or(resolve(root), root)) {
			return nil
		}
	}
	return fmt.Errorf("%s is not below %s, and Landlock lets this process run no other programs: copy it there, or restart the gateway with --program-root %s", program, strings.Join(roots, " or "), filepath.Dir(target))
}

// resolve returns the path without symlinks, or "" if it does not exist or is a pipe.
func resolve(path string) string {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	return target
}

// dynamic reports whether a program has an interpreter that loads shared libraries.
func dynamic(program string) bool {
	f, err := elf.Open(program)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return true
		}
	}
	return false
}
