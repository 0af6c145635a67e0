//go:build unix

package account

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
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

// writeAtomically replaces path. The temporary file is in the same folder:
// elsewhere a key could be left behind.
func writeAtomically(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := renameio.WriteFile(path, b, 0o600, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600)); err != nil {
		return err
	}
	// Without this a power cut could still undo the renaming.
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
