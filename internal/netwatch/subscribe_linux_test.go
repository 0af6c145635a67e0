package netwatch

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fault: F2. In a network namespace of its own, whose loopback interface comes
// up and goes down again: the kernel must be heard each time.
func TestKernelsAnnouncementsAreHeard(t *testing.T) {
	socks, errs := make(chan *os.File), make(chan error)
	flip, gone := make(chan uint16), make(chan struct{})
	go func() {
		defer close(gone)
		runtime.LockOSThread() // and never unlocked: the thread is fit for nobody else
		f, err := isolated()
		if err != nil {
			errs <- err
			return
		}
		socks <- f
		for flags := range flip {
			if err := setLoopback(flags); err != nil {
				t.Error(err)
			}
		}
	}()
	var sock *os.File
	select {
	case sock = <-socks:
	case err := <-errs:
		<-gone
		t.Skipf("no network namespace can be made here: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	news, over := make(chan struct{}, 1), make(chan error, 1)
	go func() { over <- listen(ctx, sock, news) }()
	for i, flags := range []uint16{unix.IFF_UP, 0, unix.IFF_UP} {
		flip <- flags
		select {
		case <-news:
		case <-time.After(20 * time.Second):
			t.Errorf("change %d was not heard", i)
		}
		for drained := false; !drained; { // the rest of the burst
			select {
			case <-news:
			case <-time.After(50 * time.Millisecond):
				drained = true
			}
		}
	}
	close(flip)
	<-gone
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// isolated moves the thread into a new network namespace and listens there.
func isolated() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	return open()
}

// setLoopback sets the flags of the loopback interface of the thread's namespace.
func setLoopback(flags uint16) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(flags)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}
