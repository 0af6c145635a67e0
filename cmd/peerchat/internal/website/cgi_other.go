//go:build !unix

package website

import "os/exec"

// ownGroup does nothing here: what a program has started may outlive it.
func ownGroup(*exec.Cmd) {}
