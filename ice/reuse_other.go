//go:build !unix

package ice

import "syscall"

// canSharePort is false here: without SO_REUSEPORT, dials come from ports of
// their own, which reaches everybody who can be reached without hole punching.
const canSharePort = false

func reusePort(_, _ string, _ syscall.RawConn) error { return nil }

func portTaken(error) bool { return false }
