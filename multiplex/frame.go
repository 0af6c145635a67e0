package multiplex

import (
	"encoding/binary"
	"net"

	"peerlink/channel"
)

// A frame on the wire (docs/protocol.md, "Frames"):
//
//	length:uint16 | channel:uint16 | body[length]      big-endian
//
// A body of length 0 is the end of its sender's direction.
const (
	headerLen = 4
	// maxBody is what a frame's body may have on receipt: all that 16 bits say.
	maxBody = 0xffff
	// cutBody is where senders cut by default, so that header and body fill exactly one
	// TLS record of 16 384 bytes (RFC 8446, section 5.1).
	cutBody = 16384 - headerLen
)

// The link's own channels.
const (
	controlID  channel.ID = 0x0000 // channel requests and their answers
	protocolID channel.ID = 0xffff // hello, beacons, credit, resets, going away
)

// The halves of the id space: the client opens the lower, the server the upper.
const (
	firstClientID, lastClientID channel.ID = 0x0001, 0x7fff
	firstServerID, lastServerID channel.ID = 0x8000, 0xfffe
)

// appendHeader appends the header of a frame with a body of n bytes.
func appendHeader(b []byte, id channel.ID, n int) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	return binary.BigEndian.AppendUint16(b, uint16(id))
}

// frameSize is how large the body of a data frame is at most.
type frameSize int

// cutFor returns what suits a conn: cutBody, or what its FrameSize method says.
func cutFor(conn net.Conn) frameSize {
	c, ok := conn.(interface{ FrameSize() int })
	if !ok {
		return cutBody
	}
	return frameSize(min(max(c.FrameSize(), 1<<10), maxBody))
}

// appendFrames appends p cut into frames of a channel.
func (c frameSize) appendFrames(b []byte, id channel.ID, p []byte) []byte {
	for len(p) > 0 {
		k := min(len(p), int(c))
		b = appendHeader(b, id, k)
		b = append(b, p[:k]...)
		p = p[k:]
	}
	return b
}

// fitting is how many bytes of payload fit into room bytes of frames. Ends may
// have overfilled the line: less than no room is none.
func (c frameSize) fitting(room int) int {
	room = max(room, 0)
	body := int(c)
	rest := max(room%(body+headerLen)-headerLen, 0)
	return room/(body+headerLen)*body + rest
}

// parseHeader reads a header of at least headerLen bytes.
func parseHeader(b []byte) (id channel.ID, n int) {
	return channel.ID(binary.BigEndian.Uint16(b[2:])), int(binary.BigEndian.Uint16(b))
}
