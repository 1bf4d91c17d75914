package etcdtest

import "syscall"

// dieWithParent ends a member with the test process, however that process ends.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
