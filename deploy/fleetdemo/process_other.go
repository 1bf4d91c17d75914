//go:build !linux

package main

import "syscall"

// ownGroup protects the process from Ctrl-C, so that the demo stops it in order.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
