package confine

import (
	"errors"

	"github.com/hashicorp/go-hclog"
	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// minVersion is the first version of Landlock that can allow every operation
// that a gateway needs to start.
const minVersion = 2

// restrict passes the rules to the kernel, for every thread of the process. It returns
// the version of Landlock in this kernel.
func restrict(rules []Rule, log hclog.Logger) (version int, err error) {
	version, err = ll.LandlockGetABIVersion()
	switch {
	case errors.Is(err, unix.ENOSYS):
		return 0, errors.New("the kernel does not have it, or a system call filter forbids it")
	case errors.Is(err, unix.EOPNOTSUPP):
		return 0, errors.New("it is switched off in this kernel: add landlock to the lsm= parameter")
	case errors.Is(err, unix.EPERM):
		return 0, errors.New("a system call filter forbids it")
	case err != nil:
		return 0, err
	}
	if version < minVersion {
		return 0, errors.New("this kernel has version 1, which denies linking and moving files between directories; Linux 5.19 has version 2")
	}
	var given []landlock.Rule
	for _, r := range rules {
		log.Debug("Landlock rule", "path", r.Path, "rights", r.Rights.String())
		given = append(given, landlock.PathAccess(r.Rights, r.Path).IgnoreIfMissing())
	}
	return version, landlock.Config{HandledAccessFS: all}.BestEffort().RestrictPaths(given...)
}

func setNoNewPrivileges() error { return ll.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }

// inForce asks the kernel which restrictions apply to this process.
func inForce() (noNewPrivileges, filter bool) {
	set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	noNewPrivileges = err == nil && set == 1
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	return noNewPrivileges, err == nil && mode == 2
}
