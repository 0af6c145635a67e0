package shm

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// guarded makes an access to memory that is gone an error of the call, instead
// of the end of the process. It serves regions that could not be sealed: a
// process that shrinks their file takes the pages away.
func guarded(call func([]byte) (int, error), p []byte) (n int, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface {
			runtime.Error
			Addr() uintptr
		}:
			n, err = 0, fmt.Errorf("%w: the region was cut off", ErrCorrupt)
		default:
			panic(r)
		}
	}()
	return call(p)
}
