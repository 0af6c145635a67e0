//go:build !linux

package forward

import (
	"net"
	"time"
)

// lingerTime is how long a TCP connection stays that is to be cut, as it is not
// known when what was written has arrived: as long as net/http waits
// (rstAvoidanceDelay).
const lingerTime = 500 * time.Millisecond

// dead says false: it is not known.
func dead(*net.TCPConn) bool { return false }

// arrived says false: it is not known.
func arrived(*net.TCPConn) bool { return false }
