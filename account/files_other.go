//go:build !unix

package account

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// enforcePermissions is false where modes do not say who may read a file; the
// folder is in the user's profile, which is his own.
const enforcePermissions = false

func checkOwner(string, fs.FileInfo) error { return nil }

// writeAtomically replaces path; os.Rename replaces a file in one step here
// too.
func writeAtomically(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"*")
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
