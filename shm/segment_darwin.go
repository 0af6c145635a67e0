package shm

import (
	"os"

	"golang.org/x/sys/unix"
)

// newRegion makes memory of a temporary file, as there is none to be sealed.
func newRegion(size int) (*os.File, error) { return tempFile(os.TempDir(), size) }

// reserve asks for all of the file's blocks.
func reserve(f *os.File, size int64) error {
	return unix.FcntlFstore(f.Fd(), unix.F_PREALLOCATE, &unix.Fstore_t{
		Flags: unix.F_ALLOCATEALL, Posmode: unix.F_PEOFPOSMODE, Length: size,
	})
}

func checkRegion(f *os.File, size int) (mayShrink bool, err error) {
	return regionMayShrink, checkFile(f, size)
}

// regionMayShrink says whether the maker's own region could be cut off.
const regionMayShrink = true
