//go:build !unix

package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
)

// replace renames in one step, which os.Rename does here too.
func replace(folder, path string, b []byte) error {
	f, err := os.CreateTemp(folder, "."+filepath.Base(path)+"*") // Mode
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// syncFolder does nothing: a folder cannot be opened for that here.
func syncFolder(string) error { return nil }
