package confine

import (
	"os"
	"strconv"

	"github.com/hashicorp/go-hclog"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// inheritedVariable is the environment variable by which the new process of an upgrade
// learns the version of Landlock that already restricts it. More restrictions would only
// add up: the kernel allows 16 layers of them.
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

// Apply restricts the process as the flags say. It returns what is in force, and logs what
// is not. inherited is what Inherited returned, if this process replaces another one.
func (f *Flags) Apply(p Paths, inherited int, lookupEnv func(string) (string, bool), log hclog.Logger) *adminv1.Confinement {
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
		version, err := restrict(Rules(f.paths(p, lookupEnv)), log)
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
	return c
}

// lacking returns what this version of Landlock cannot restrict.
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
