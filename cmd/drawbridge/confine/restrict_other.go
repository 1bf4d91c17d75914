//go:build !linux

package confine

import (
	"errors"

	"github.com/hashicorp/go-hclog"
)

func restrict([]Rule, hclog.Logger) (version int, err error) {
	return 0, errors.New("only Linux has it")
}

func setNoNewPrivileges() error { return errors.New("only Linux has it") }

func inForce() (noNewPrivileges, filter bool) { return false, false }
