package webrtc

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"peerlink/internal/calls"
)

// ErrNoPath is matched by the error of a Dial that found no way to the device
// in time. The error's text says how far it came and what was tried.
var ErrNoPath = calls.ErrNoPath

// RefusedError says that the device was reached and does not want this
// connection: its Peer is the device, its Reason what the device said, at most 200
// bytes of a stranger's text. Its method Refused returns the reason too.
type RefusedError = calls.RefusedError

// list shows the addresses of candidates.
func list(cs []string) string {
	if len(cs) == 0 {
		return "none"
	}
	var out []string
	for _, c := range cs {
		if f := strings.Fields(c); len(f) >= 8 {
			out = append(out, fmt.Sprintf("%s %s %s", f[2], f[7], net.JoinHostPort(f[4], f[5])))
		}
	}
	return strings.Join(out, ", ")
}

// errLost is why a stream without its connection cannot be written to.
var errLost = errors.New("the connection to the peer has ended")

var errClosed = fmt.Errorf("webrtc: transport closed: %w", net.ErrClosed)
