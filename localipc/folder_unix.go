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
	"strings"

	"peerlink/identity"
	"peerlink/internal/runfolder"
)

// Names in a runtime folder, and bounds on what is looked at there.
const (
	nameDigits  = 32 // 128 bits of the id; all 64 digits would not leave room in a socket's address
	sockSuffix  = ".sock"
	lockSuffix  = ".lock"
	peerSuffix  = ".peer"
	newSuffix   = ".new" // an announcement that is being written
	maxDirReads = 4096
)

func selfUID() int { return os.Geteuid() }

func defaultDir() string { return runfolder.Default() }

// place is where one device is found in one folder.
type place struct {
	dir  string
	base string
}

func newPlace(dir string, id identity.DeviceID) place {
	return place{dir: dir, base: id.String()[:nameDigits]}
}

func (p place) path(suffix string) string { return filepath.Join(p.dir, p.base+suffix) }

// checkPath refuses a folder in which the system cannot address sockets.
func (p place) checkPath() error { return runfolder.CheckSocket(p.path(sockSuffix)) }

// checkClosed refuses an own folder that is open to others.
func checkClosed(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if perm := st.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("runtime folder %s is open to other users (mode %04o): chmod 0700 it", dir, perm)
	}
	return nil
}

// readPeerFile reads the announcement in p. A FIFO, a device, a link or a
// stranger's file is not read.
func (p place) readPeerFile() ([]byte, error) {
	path := p.path(peerSuffix)
	f, st, err := runfolder.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch owner := runfolder.OwnerOf(st); {
	case owner != os.Geteuid():
		return nil, fmt.Errorf("%s belongs to user %d, its folder to user %d", path, owner, os.Geteuid())
	case st.Size() > maxAnnouncement:
		return nil, fmt.Errorf("%s has %d bytes, an announcement at most %d", path, st.Size(), maxAnnouncement)
	}
	return io.ReadAll(io.LimitReader(f, maxAnnouncement+1))
}

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
			if base, ok := strings.CutSuffix(e, suffix); ok && len(base) == nameDigits && strings.Trim(base, "0123456789abcdef") == "" && !slices.Contains(names, base) {
				names = append(names, base)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// clean removes the socket and the announcement under a name that this process has locked.
func (p place) clean() error {
	return errors.Join(
		runfolder.Remove(p.path(sockSuffix), fs.ModeSocket),
		runfolder.Remove(p.path(peerSuffix), 0),
		runfolder.Remove(p.path(newSuffix), 0),
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
		dead := place{dir: p.dir, base: name}
		l, err := takeLock(dead.path(lockSuffix))
		if err != nil {
			continue
		}
		_ = dead.clean()
		l.release()
	}
}
