package inbox

import (
	"errors"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// moveNew renames within a folder, and fails with fs.ErrExist rather than
// replace anything.
func moveNew(root *os.Root, from, to string) error {
	dir, err := root.Open(path.Dir(from))
	if err != nil {
		return err
	}
	defer dir.Close()
	fd := int(dir.Fd())
	switch err := unix.Renameat2(fd, path.Base(from), fd, path.Base(to), unix.RENAME_NOREPLACE); {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPERM): // older, or a network file system
		return linkNew(root, from, to)
	case err != nil:
		return &fs.PathError{Op: "rename", Path: to, Err: err}
	}
	return nil
}
