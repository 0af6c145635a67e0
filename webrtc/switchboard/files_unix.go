//go:build unix

package switchboard

import (
	"math"

	"golang.org/x/sys/unix"
)

// openFiles is how many files this process may open at once, where that is known.
func openFiles() (most int, known bool) {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0, false
	}
	return int(min(l.Cur, math.MaxInt32)), true
}
