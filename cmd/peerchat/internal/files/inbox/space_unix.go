//go:build linux || darwin

package inbox

import (
	"os"

	"golang.org/x/sys/unix"
)

// freeSpace returns how many bytes a user may still write.
func freeSpace(root *os.Root) (int64, error) {
	d, err := root.Open(".")
	if err != nil {
		return 0, err
	}
	defer d.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.Fd()), &st); err != nil {
		return 0, err
	}
	const most = 1 << 62
	if st.Bavail > most/uint64(st.Bsize) {
		return most, nil
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // not on every system
}
