//go:build linux || darwin

package localipc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gofrs/flock"
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
type lock struct{ *flock.Flock }

// waitLock takes the lock at path, or finds out that another process keeps it.
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
// worth nothing, and the file that is there now has to be locked.
func takeLock(path string) (*lock, error) {
	for {
		l := &lock{flock.New(path, flock.SetFlag(os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK), flock.SetPermissions(0o600))}
		switch held, err := l.TryLock(); {
		case err != nil:
			return nil, fmt.Errorf("open the lock: %w", err)
		case !held:
			return nil, errLocked
		}
		err := l.check()
		if err == nil && l.stands() {
			return l, nil
		}
		if _ = l.Unlock(); err != nil {
			return nil, err
		}
	}
}

// check refuses what is not a plain file of this user.
func (l *lock) check() error {
	st, err := l.Stat()
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is no plain file, but %s: it is left alone; move it away", l.Path(), st.Mode())
	}
	return runfolder.CheckOwner(l.Path(), st)
}

// release removes the file, then gives the lock back; a process that waits for this
// file will see that it is gone.
func (l *lock) release() {
	if l.stands() {
		_ = os.Remove(l.Path())
	}
	_ = l.Unlock()
}

// stands reports whether the file that is locked is the one at its path.
func (l *lock) stands() bool {
	a, err := l.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(l.Path())
	return err == nil && os.SameFile(a, b)
}
