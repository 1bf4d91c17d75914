package confine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway/files"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// inheritedVariable is the environment variable by which the new process of an upgrade
// learns the version of Landlock that already restricts it. That process adds no
// restrictions, because each upgrade would add a layer and the kernel allows 16.
const inheritedVariable = "DRAWBRIDGE_UPGRADE_LANDLOCK"

// Inherited returns the version of Landlock that the process inherited from the one that
// it replaces, or 0. It removes the variable from the environment.
func Inherited(replaces bool) int {
	version, err := strconv.Atoi(os.Getenv(inheritedVariable))
	os.Unsetenv(inheritedVariable)
	if err != nil || !replaces {
		return 0
	}
	return version
}

// Environment returns the variables for the new process of an upgrade.
func Environment(c *adminv1.Confinement) []string {
	if !c.GetLandlock() {
		return nil
	}
	return []string{inheritedVariable + "=" + strconv.Itoa(int(c.GetLandlockVersion()))}
}

// Apply makes the directories that a start needs, and then restricts the process as
// the flags say. It returns the restrictions in force, and logs those that are
// missing. inherited is the result of Inherited, if this process replaces another one.
//
// Call Apply before reading files that may hang: the kernel restricts each thread, and a
// thread that waits for such a file would make Apply wait too.
func (f *Flags) Apply(ctx context.Context, paths func() Paths, inherited int, lookupEnv func(string) (string, bool), log hclog.Logger) (*adminv1.Confinement, error) {
	c := &adminv1.Confinement{}
	if f.noNewPrivileges {
		if err := setNoNewPrivileges(); err != nil {
			c.Missing = append(c.Missing, "no_new_privs: "+err.Error())
		}
	} else {
		c.Missing = append(c.Missing, "no_new_privs: off (--no-new-privileges=false)")
	}
	switch {
	case inherited > 0:
		c.Landlock, c.LandlockVersion = true, int32(inherited)
		c.Missing = append(c.Missing, lacking(inherited)...)
	case !f.landlock:
		c.Missing = append(c.Missing, "Landlock: off (--landlock=false)")
	default:
		rules, err := files.Await(ctx, log, "paths that the flags name", func() ([]Rule, error) {
			p := paths()
			p.makeDirs()
			return existing(Rules(f.complete(p, lookupEnv)), log), nil
		})
		if err != nil {
			return nil, err
		}
		version, err := restrict(rules, log)
		if err != nil {
			c.Missing = append(c.Missing, "Landlock: "+err.Error())
			break
		}
		c.Landlock, c.LandlockVersion = true, int32(version)
		c.Missing = append(c.Missing, lacking(version)...)
	}
	c.NoNewPrivileges, c.SystemCallFilter = inForce()
	for _, missing := range c.Missing {
		log.Warn("not every restriction is in force", "error", missing)
	}
	log.Info("confined", "landlock", c.LandlockVersion, "no_new_privileges", c.NoNewPrivileges, "system_call_filter", c.SystemCallFilter)
	return c, nil
}

// makeDirs makes the directories that a start needs and that do not exist, because the
// process cannot make them later. A directory that cannot be made fails the start later,
// with the reason.
func (p Paths) makeDirs() {
	for _, dir := range []string{p.DataDir, filepath.Dir(p.AdminSocket)} {
		_ = os.MkdirAll(dir, 0o700)
	}
}

// existing returns the rules whose paths exist, with the rights that fit them.
func existing(rules []Rule, log hclog.Logger) []Rule {
	var out []Rule
	for _, r := range rules {
		info, err := os.Stat(r.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			log.Warn("Landlock: the process cannot use a path until a restart", "path", r.Path, "error", err)
			continue
		case info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0:
			continue // an unnamed pipe is never restricted, and a named pipe is in a directory
		case !info.IsDir():
			r.Rights &= fileRights
		}
		out = append(out, r)
	}
	return out
}

// lacking returns the restrictions that this version of Landlock does not
// support.
func lacking(version int) []string {
	var out []string
	if version < 3 {
		out = append(out, "Landlock: this kernel cannot restrict truncating files; Linux 6.2 can")
	}
	if version < 5 {
		out = append(out, "Landlock: this kernel cannot restrict ioctl on devices; Linux 6.10 can")
	}
	return out
}
