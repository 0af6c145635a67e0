//go:build linux || darwin

package localipc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"peerlink/identity"
)

// Names in a runtime folder, and bounds on what is looked at there.
const (
	nameDigits   = 32 // 128 bits of the id; all 64 digits would not leave room in a socket's address
	sockSuffix   = ".sock"
	lockSuffix   = ".lock"
	peerSuffix   = ".peer"
	newSuffix    = ".new" // an announcement that is being written
	maxDirReads  = 4096
	writeByOther = 0o022
)

func selfUID() int { return os.Geteuid() }

// defaultDir is Config.Dir's default.
func defaultDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "peerlink")
	}
	return filepath.Join(os.TempDir(), "peerlink-"+strconv.Itoa(os.Geteuid()))
}

// place is where one device is found in one folder.
type place struct {
	dir   string
	owner int // the folder's user
	base  string
}

func newPlace(dir string, owner int, id identity.DeviceID) place {
	return place{dir: dir, owner: owner, base: id.String()[:nameDigits]}
}

func (p place) path(suffix string) string { return filepath.Join(p.dir, p.base+suffix) }

// checkPath refuses a folder whose sockets the system cannot address: better
// now, with both lengths, than as "invalid argument".
func (p place) checkPath() error {
	most := len(unix.RawSockaddrUnix{}.Path) - 1
	if path := p.path(sockSuffix); len(path) > most {
		return fmt.Errorf("socket path %s has %d bytes, the system takes %d: choose a folder with a shorter path (Config.Dir, XDG_RUNTIME_DIR)", path, len(path), most)
	}
	return nil
}

// ownFolder makes the folder if it is missing and checks that others can
// neither change it nor put another one in its place.
func ownFolder(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("runtime folder %q: want an absolute path", dir)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the runtime folder: %w", err)
	}
	owner, err := checkFolder(dir)
	if err != nil {
		return err
	}
	if owner != os.Geteuid() {
		return fmt.Errorf("runtime folder %s belongs to user %d, this process runs as %d: choose another one (Config.Dir)", dir, owner, os.Geteuid())
	}
	return nil
}

// checkFolder returns whose folder it is. A symbolic link is refused, and so
// is a folder in which others may make files.
func checkFolder(dir string) (owner int, err error) {
	st, err := os.Lstat(dir)
	if err != nil {
		return 0, err
	}
	if !st.IsDir() {
		return 0, fmt.Errorf("runtime folder %s is no folder, but %s", dir, st.Mode())
	}
	if perm := st.Mode().Perm(); perm&writeByOther != 0 {
		return 0, fmt.Errorf("runtime folder %s may be changed by other users (mode %04o): chmod 0700 it", dir, perm)
	}
	return ownerOf(st), nil
}

// checkClosed refuses an own folder that is open to others although no other
// user was listed.
func checkClosed(dir string, users []int) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if perm := st.Mode().Perm(); perm&0o077 != 0 && len(users) == 0 {
		return fmt.Errorf("runtime folder %s is open to other users (mode %04o), but none is listed (Config.Users): chmod 0700 it", dir, perm)
	}
	return nil
}

// readPeerFile reads the announcement in p. A FIFO, a device, a link or a
// stranger's file is not read.
func (p place) readPeerFile() ([]byte, error) {
	path := p.path(peerSuffix)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no plain file, but %s", path, st.Mode())
	case ownerOf(st) != p.owner:
		return nil, fmt.Errorf("%s belongs to user %d, its folder to user %d", path, ownerOf(st), p.owner)
	case st.Size() > maxAnnouncement:
		return nil, fmt.Errorf("%s has %d bytes, an announcement at most %d", path, st.Size(), maxAnnouncement)
	}
	return io.ReadAll(io.LimitReader(f, maxAnnouncement+1))
}

// devicesIn returns the names of the devices that have files in dir.
func devicesIn(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var names []string
	entries, err := d.Readdirnames(maxDirReads)
	if err != nil && err != io.EOF {
		return nil, err
	}
	for _, e := range entries {
		for _, suffix := range []string{lockSuffix, peerSuffix, sockSuffix, newSuffix} {
			if base, ok := strings.CutSuffix(e, suffix); ok && isName(base) && !slices.Contains(names, base) {
				names = append(names, base)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

func isName(s string) bool {
	return len(s) == nameDigits && strings.Trim(s, "0123456789abcdef") == ""
}

// removeOurs unlinks what a dead process of this user left under a name whose
// lock is held. Anything else there is left alone, with an error.
func removeOurs(path string, want fs.FileMode) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() != want:
		return fmt.Errorf("%s is not what peerlink makes there, but %s: it is left alone; move it away", path, st.Mode())
	case ownerOf(st) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d: it is left alone; ask him to remove it", path, ownerOf(st))
	}
	return os.Remove(path)
}

// clean removes the socket and the announcement under a name whose lock is held.
func (p place) clean() error {
	return errors.Join(
		removeOurs(p.path(sockSuffix), fs.ModeSocket),
		removeOurs(p.path(peerSuffix), 0),
		removeOurs(p.path(newSuffix), 0),
	)
}

// sweep removes what other dead devices left in the folder. What cannot be
// removed is left; the device itself will say so when it starts.
func (p place) sweep() {
	names, err := devicesIn(p.dir)
	if err != nil {
		return
	}
	for _, name := range names {
		if name == p.base {
			continue
		}
		dead := place{dir: p.dir, owner: p.owner, base: name}
		l, err := takeLock(dead.path(lockSuffix))
		if err != nil {
			continue
		}
		_ = dead.clean()
		l.release()
	}
}
