package main

import "syscall"

// ownGroup protects the process from Ctrl-C, so that the demo stops it in order, and ends
// it with the demo, however the demo ends.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
