//go:build !linux

package ice

import (
	"net"
	"time"
)

// sinceAcknowledged is not known here: the keepalive and beacons notice.
func sinceAcknowledged(*net.TCPConn) (time.Duration, bool) { return 0, false }
