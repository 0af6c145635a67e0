//go:build unix

package atomicfile

import (
	"errors"
	"os"

	"github.com/google/renameio/v2"
)

// replace does not use renameio.WriteFile, which keeps the old file's mode.
func replace(folder, path string, b []byte) error {
	f, err := renameio.TempFile(folder, path) // Mode
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.CloseAtomicallyReplace()
	}
	return errors.Join(err, f.Cleanup())
}

// syncFolder makes the names in a folder safe from a power cut.
func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
