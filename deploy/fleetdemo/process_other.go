//go:build !linux

package main

import "syscall"

// ownGroup keeps Ctrl-C from the process, so that the demo stops it in order.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
