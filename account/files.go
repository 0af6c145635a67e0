package account

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"peerlink/internal/atomicfile"
)

// The files of an account.
const (
	identityFile = "identity.pem"
	configFile   = "config.json"
	trustFile    = "trust"
	lockFile     = "lock"
	// creatingFile is there while the account is being made.
	creatingFile = "creating"
)

// maxFile bounds what is read of any of them, in bytes; a full trust store has
// about 36 MB.
const maxFile = 64 << 20

// files changes the files of a folder; each call has happened whole or not at
// all, also when the process or the machine dies in the middle. Tests let it
// die at every call.
type files interface {
	replace(name string, b []byte) error
	remove(name string) error
}

// dirFiles are the files of the directory so named; of "" there are none, and what
// is written is gone.
type dirFiles string

func (d dirFiles) path(name string) string {
	if d == "" {
		return ""
	}
	return filepath.Join(string(d), name)
}

// replace writes b aside, syncs it and renames it to name. The file is for
// this user only.
func (d dirFiles) replace(name string, b []byte) error {
	if d == "" {
		return nil
	}
	if err := atomicfile.Write(d.path(name), b); err != nil {
		return fmt.Errorf("write %s: %w", d.path(name), err)
	}
	return nil
}

func (d dirFiles) remove(name string) error {
	err := os.Remove(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (d dirFiles) exists(name string) bool {
	_, err := os.Lstat(d.path(name))
	return err == nil
}

// read returns the contents of a file that this user owns and nobody else can
// change; mask says what others may not do to it otherwise.
func (d dirFiles) read(name string, mask fs.FileMode) ([]byte, error) {
	path := d.path(name)
	before, err := os.Lstat(path) // before opening: opening a pipe would block
	if err != nil {
		return nil, err
	}
	if err := checkOurs(path, before, mask); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if opened, err := f.Stat(); err != nil || !os.SameFile(before, opened) {
		return nil, fmt.Errorf("%s is being replaced by another process: try again", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes: it is not an account's file", path, maxFile)
	}
	return b, err
}

// checkOurs refuses what is not a plain file of this user.
func checkOurs(path string, st fs.FileInfo, mask fs.FileMode) error {
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file (%s): put the file itself there", path, st.Mode().Type())
	}
	if err := checkOwner(path, st); err != nil {
		return err
	}
	if perm := st.Mode().Perm(); enforcePermissions && perm&mask != 0 {
		return fmt.Errorf("%s has mode %04o, so others may have read or changed it: if you are sure that nobody has, chmod 600 it; else make a new account", path, perm)
	}
	return nil
}

// sweep removes what a process that died has left of its writing aside. The
// folder must be locked.
func (d dirFiles) sweep() error {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if isLeftover(e.Name()) && e.Type().IsRegular() {
			if err := d.remove(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// isLeftover recognises what atomicfile may leave: a dot, the file's name and a
// number.
func isLeftover(name string) bool {
	file, hidden := strings.CutPrefix(strings.TrimRight(name, "0123456789"), ".")
	kept := strings.HasPrefix(file, keptPrefix) && strings.HasSuffix(file, ".pem")
	ours := kept || slices.Contains([]string{identityFile, configFile, trustFile, creatingFile, devicesFile}, file)
	return hidden && ours && len(name) > len(file)+1
}
