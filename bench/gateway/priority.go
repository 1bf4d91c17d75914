package gateway

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

// Scheduling policies, as in sched(7).
const (
	schedOther = 0
	schedFIFO  = 1
)

// atPriority calls start at a real-time priority, which processes that start starts
// inherit. They run as if no other process ran on the machine. It needs
// CAP_SYS_NICE.
func atPriority(start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := schedule(schedFIFO, 10); err != nil {
		return fmt.Errorf("set a real-time priority: %w", err)
	}
	err := start()
	if restored := schedule(schedOther, 0); restored != nil && err == nil {
		err = fmt.Errorf("end the real-time priority: %w", restored)
	}
	return err
}

// schedule sets the policy and priority of this thread.
func schedule(policy, priority int) error {
	param := struct{ priority int32 }{int32(priority)}
	_, _, errno := syscall.Syscall(syscall.SYS_SCHED_SETSCHEDULER, 0, uintptr(policy), uintptr(unsafe.Pointer(&param)))
	if errno != 0 {
		return errno
	}
	return nil
}
