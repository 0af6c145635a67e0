//go:build !linux

package ice

import (
	"net"
	"time"
)

// tcpKeepAlive ends an idle path after three seconds: the system does not tell
// how long a silence has lasted.
var tcpKeepAlive = net.KeepAliveConfig{Enable: true, Idle: tcpProbeAfter, Interval: time.Second, Count: 2}

// stateOf is not known here: the keepalive and beacons notice.
func stateOf(*net.TCPConn) (tcpState, bool) { return tcpState{}, false }

// probeTCP is not needed here.
func probeTCP(*net.TCPConn) {}
