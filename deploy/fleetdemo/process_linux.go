package main

import "syscall"

// ownGroup keeps Ctrl-C from the process, so that the demo stops it in order, and ends it
// with the demo, however the demo ends.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
