package netwatch

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"peerlink/internal/pause"
)

// groups are the kernel's announcements that matter: links, and addresses and
// routes of both families. (A route often comes seconds after the address.)
const groups = 1<<(unix.RTNLGRP_LINK-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
	1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1)

// subscribe tells of every announcement of the kernel until ctx ends. It fails
// where such sockets are forbidden.
func subscribe(ctx context.Context, news chan<- struct{}) error {
	f, err := open()
	if err != nil {
		return err
	}
	return listen(ctx, f, news)
}

// open returns the socket on which the kernel announces changes, of the
// thread's network namespace.
func open() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netwatch: netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("netwatch: subscribe to the kernel's announcements: %w", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil // non-blocking: a Read ends with Close
}

// listen tells of what arrives on the socket, which it closes, until ctx ends.
// Nothing of a message is believed but that there was one: what is to be known
// is looked up by whoever wants it.
func listen(ctx context.Context, f *os.File, news chan<- struct{}) error {
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer stop()
	buf := make([]byte, 4096) // longer messages are cut, and tell as much
	for {
		_, err := f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil, errors.Is(err, unix.ENOBUFS): // the latter: some were lost
			pause.Tell(news, struct{}{})
		default:
			return fmt.Errorf("netwatch: read the kernel's announcements: %w", err)
		}
	}
}
