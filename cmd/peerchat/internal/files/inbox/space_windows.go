package inbox

import (
	"os"

	"golang.org/x/sys/windows"
)

// freeSpace returns how many bytes a user may still write.
func freeSpace(root *os.Root) (int64, error) {
	name, err := windows.UTF16PtrFromString(root.Name())
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, err
	}
	return int64(min(free, 1<<62)), nil
}
