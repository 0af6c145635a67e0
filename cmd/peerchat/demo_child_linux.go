package main

import "syscall"

// childAttr has the kernel end the child when this process dies, however it
// does.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
