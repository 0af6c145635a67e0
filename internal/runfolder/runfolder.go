//go:build linux || darwin

package runfolder

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// writeByOther are the permission bits that let other users change a file.
const writeByOther = 0o022

// Default returns $XDG_RUNTIME_DIR/peerlink, or else peerlink-UID in the folder
// for temporary files. Where that cannot be this user's, because it is another
// user's already or the folder for temporary files is read-only, Default returns
// peerlink/run in the user's cache folder, and makes the folders above it. So all
// processes of a user agree on one folder.
func Default() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "peerlink")
	}
	dir := filepath.Join(os.TempDir(), "peerlink-"+strconv.Itoa(os.Geteuid()))
	err := Check(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = unix.Access(os.TempDir(), unix.W_OK|unix.X_OK)
	}
	if err == nil {
		return dir
	}
	cache, none := os.UserCacheDir()
	if none != nil || os.MkdirAll(filepath.Join(cache, "peerlink"), 0o700) != nil {
		return dir // whose error says what is wrong
	}
	return filepath.Join(cache, "peerlink", "run")
}

// Own makes the folder if it is missing, with mode 0700, and checks that it is
// this user's and that others can neither change it nor put another one in its
// place.
func Own(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("runtime folder %q: want an absolute path", dir)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the runtime folder: %w", err)
	}
	return Check(dir)
}

// Check refuses a symbolic link, a folder of another user, and a folder in which
// other users may make files.
func Check(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("runtime folder %s is no folder, but %s", dir, st.Mode())
	}
	if perm := st.Mode().Perm(); perm&writeByOther != 0 {
		return fmt.Errorf("runtime folder %s may be changed by other users (mode %04o): chmod 0700 it", dir, perm)
	}
	if owner := OwnerOf(st); owner != os.Geteuid() {
		return fmt.Errorf("runtime folder %s belongs to user %d, this process runs as %d: choose another one (Config.Dir, XDG_RUNTIME_DIR)", dir, owner, os.Geteuid())
	}
	return nil
}

// CheckSocket refuses a socket's path that the system cannot address: better
// now, with both lengths, than as "invalid argument".
func CheckSocket(path string) error {
	if most := len(unix.RawSockaddrUnix{}.Path) - 1; len(path) > most {
		return fmt.Errorf("socket path %s has %d bytes, the system takes %d: choose a folder with a shorter path (Config.Dir, XDG_RUNTIME_DIR)", path, len(path), most)
	}
	return nil
}

// Open opens a plain file for reading. A pipe, a device or a symbolic link is
// refused without waiting.
func Open(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no plain file, but %s", path, st.Mode())
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, st, nil
}

// Remove unlinks what a dead process of this user left at path: nil if nothing
// is there. A file of another type, or of another user, is left alone, with an
// error.
func Remove(path string, want fs.FileMode) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() != want:
		return fmt.Errorf("%s is not what peerlink makes there, but %s: it is left alone; move it away", path, st.Mode())
	}
	if err := CheckOwner(path, st); err != nil {
		return err
	}
	return os.Remove(path)
}

// CheckOwner refuses a file of another user.
func CheckOwner(path string, st fs.FileInfo) error {
	if owner := OwnerOf(st); owner != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: it is left alone; have that user remove it", path, owner)
	}
	return nil
}

// Writable reports whether users other than this one may have written a file.
func Writable(st fs.FileInfo) bool {
	return st.Mode().Perm()&writeByOther != 0 || OwnerOf(st) != os.Geteuid()
}

// OwnerOf returns the user that a file belongs to; -1 if that is not known.
func OwnerOf(st fs.FileInfo) int {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return -1
	}
	return int(sys.Uid)
}

// ErrNoSocket is returned by PeerOf for a connection that is no socket of the
// system, as within one process.
var ErrNoSocket = errors.New("not a socket of the system")

// PeerOf asks the kernel which user and process made the other end of a socket,
// or listened for it.
func PeerOf(conn net.Conn) (uid, pid int, err error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return -1, 0, ErrNoSocket
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, 0, err
	}
	var asked error
	if err := raw.Control(func(fd uintptr) { uid, pid, asked = askPeer(int(fd)) }); err != nil {
		return -1, 0, err
	}
	if asked != nil {
		return -1, 0, asked
	}
	return uid, pid, nil
}
