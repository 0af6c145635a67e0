//go:build linux || darwin

package shm

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// segment is memory that two processes have mapped.
type segment struct {
	mem       []byte
	name      string
	mayShrink bool // it could not be sealed
}

func mapSegment(f *os.File, size int, mayShrink bool) (*segment, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of shared memory: %w", size, err)
	}
	seg := &segment{mem: mem, mayShrink: mayShrink}
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) == nil {
		seg.name = fmt.Sprintf("inode %d", st.Ino)
	}
	return seg, nil
}

func (s *segment) close() {
	// What could fail is a range that was never mapped.
	_ = unix.Munmap(s.mem)
}

// tempFile makes a region of a temporary file without a name.
func tempFile(dir string, size int) (*os.File, error) {
	f, err := os.CreateTemp(dir, "peerlink-shm-") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("make a temporary file for shared memory: %w", err)
	}
	err = os.Remove(f.Name())
	if err == nil {
		err = f.Truncate(int64(size))
	}
	if err == nil {
		err = reserve(f, int64(size))
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("make %d bytes of shared memory in %s: %w", size, dir, err)
	}
	return f, nil
}

// checkFile refuses what is no plain file of that size.
func checkFile(f *os.File, size int) error {
	st, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("the peer sent no memory, but %s", st.Mode())
	case st.Size() != int64(size):
		return fmt.Errorf("the peer sent %d bytes of memory and announced %d", st.Size(), size)
	}
	return nil
}
