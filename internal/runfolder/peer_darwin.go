package runfolder

import "golang.org/x/sys/unix"

// solLocal is SOL_LOCAL of <sys/un.h>.
const solLocal = 0

func askPeer(fd int) (uid, pid int, err error) {
	x, err := unix.GetsockoptXucred(fd, solLocal, unix.LOCAL_PEERCRED)
	if err != nil {
		return -1, 0, err
	}
	pid, err = unix.GetsockoptInt(fd, solLocal, unix.LOCAL_PEERPID)
	return int(x.Uid), pid, err
}
