package runfolder

import "golang.org/x/sys/unix"

func askPeer(fd int) (uid, pid int, err error) {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return -1, 0, err
	}
	return int(c.Uid), int(c.Pid), nil
}
