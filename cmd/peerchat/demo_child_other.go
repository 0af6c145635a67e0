//go:build !linux

package main

import "syscall"

// childAttr leaves the end of the child to stop and to the context.
func childAttr() *syscall.SysProcAttr { return nil }
