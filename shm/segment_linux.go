package shm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// seals keep a region's size, and the seals.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// newRegion makes memory without a name, of a size that no process can change, with
// all of its pages: where there are none, that is told here and not later, by a
// signal.
func newRegion(size int) (*os.File, error) {
	fd, err := unix.MemfdCreate("peerlink", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("peerlink", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("make shared memory (memfd_create): %w", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:peerlink")
	err = f.Truncate(int64(size))
	if err == nil {
		err = reserve(f, int64(size))
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("make %d bytes of shared memory: %w", size, err)
	}
	return f, nil
}

// reserve gives the file all its pages.
func reserve(f *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		if err != unix.EINTR {
			return os.NewSyscallError("fallocate", err)
		}
	}
}

// checkRegion refuses a region from which a process could take pages away.
func checkRegion(f *os.File, size int) (mayShrink bool, err error) {
	if err := checkFile(f, size); err != nil {
		return false, err
	}
	have, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return false, fmt.Errorf("the peer sent memory that cannot be sealed: %w", err)
	}
	if have&seals != seals {
		return false, fmt.Errorf("the peer sent memory that is not sealed against a change of its size (seals %#x, want %#x)", have, seals)
	}
	return false, nil
}

// regionMayShrink says whether the maker's own region could be cut off.
const regionMayShrink = false
