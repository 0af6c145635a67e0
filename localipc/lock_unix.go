//go:build linux || darwin

package localipc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"peerlink/internal/pause"
	"peerlink/internal/runfolder"
)

// While another process sweeps, it holds a dead device's lock for a moment. So
// a lock that is taken is asked for again before it is believed.
const (
	lockTries = 20
	lockPause = 10 * time.Millisecond
)

// errLocked is the error of a lock that another process holds.
var errLocked = errors.New("locked")

// lock is a held file lock, the sign of life of a device. The system gives it
// back when the process ends, however it ends.
type lock struct {
	f    *os.File
	path string
}

// waitLock takes the lock at path, or finds out that somebody keeps it.
func waitLock(ctx context.Context, path string) (*lock, error) {
	for i := 1; ; i++ {
		l, err := takeLock(path)
		if !errors.Is(err, errLocked) || i == lockTries {
			return l, err
		}
		if err := pause.For(ctx, lockPause); err != nil {
			return nil, err
		}
	}
}

// takeLock takes the lock at path without waiting. The file may have been
// removed, or replaced, between opening and locking it: then the lock is
// nobody's, and the file that is there now has to be locked.
func takeLock(path string) (*lock, error) {
	for {
		f, err := openLock(path)
		if err != nil {
			return nil, err
		}
		if err := flock(f); err != nil {
			_ = f.Close()
			return nil, err
		}
		if sameFile(f, path) {
			return &lock{f: f, path: path}, nil
		}
		_ = f.Close()
	}
}

// release removes the file, then gives the lock back; whoever waits for this
// file will see that it is gone.
func (l *lock) release() {
	if sameFile(l.f, l.path) {
		_ = os.Remove(l.path)
	}
	_ = l.f.Close()
}

// openLock opens or makes a lock file. What is not a plain file of this user is
// refused.
func openLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		err = fmt.Errorf("%s is no plain file, but %s: it is left alone; move it away", path, st.Mode())
	default:
		err = runfolder.CheckOwner(path, st)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return errLocked
		default:
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}
