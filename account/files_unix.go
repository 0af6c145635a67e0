//go:build unix

package account

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

const enforcePermissions = true

// checkOwner refuses what belongs to another user: he could change it, and as
// root one would leave files behind that the owner cannot use.
func checkOwner(path string, st fs.FileInfo) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if ok && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, this process runs as %d: run it as its owner, or chown it", path, sys.Uid, os.Geteuid())
	}
	return nil
}
