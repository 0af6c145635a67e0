package multiplex

import (
	"peerlink/channel"
	"peerlink/internal/stream"
)

// Where the conn is memory, bulk is copied once on each side: from the Write to
// where the peer will read it, and from there to the Read that waits.

// stager is an eagerConn that is memory: what is sent can be copied to where the
// peer will read it before it is sent. Stage copies head and body, both of them
// or nothing, neither waits nor makes a system call, and the next WriteNow or
// Write, perhaps of nothing, sends them ahead of its own bytes.
type stager interface {
	eagerConn
	Stage(head, body []byte) bool
}

// directLen is from how large a data frame on the next one's header is read by
// itself through memory, so that the Read that receives gets its body without a
// copy between.
const directLen = 8 << 10

// stageLocked puts bulk straight where the peer will read it, which saves a copy,
// where the conn is memory and nothing else waits, and returns how much that
// was: as many whole frames as fit. All are of one length, or the last would be
// of a few bytes only. l.mu is held.
func (l *line) stageLocked(id channel.ID, p []byte) (n int) {
	if l.stager == nil || len(p) < gatherLen || l.busy || l.cut || len(l.data)+len(l.ready) > 0 || l.pacer.limit < lineCap {
		return 0
	}
	if len(l.urgent) > 0 {
		if !l.stager.Stage(l.urgent, nil) {
			return 0
		}
		l.staged += len(l.urgent)
		l.urgent = l.urgent[:0]
	}
	frames := (len(p) + int(l.size) - 1) / int(l.size)
	body := (len(p) + frames - 1) / frames
	for n < len(p) {
		b := p[n:min(n+body, len(p))]
		if !l.stager.Stage(appendHeader(l.head[:0], id, len(b)), b) {
			break
		}
		l.staged += headerLen + len(b)
		n += len(b)
	}
	return n
}

// readFor reads once for the Read of a stream, which receives for the link. Of bulk
// through memory it gets its part straight from the conn.
func (s *Socket) readFor(st *stream.Stream) error {
	in := &s.intake
	if !in.bulk || in.r < in.w || s.line.stager == nil { // elsewhere each read is a system call
		return in.read(s.conn)
	}
	if in.left == 0 {
		n, err := s.conn.Read(in.room()[:headerLen])
		in.w += n
		return unless(n > 0, err)
	}
	if in.e == nil || &in.e.stream != st || in.drop {
		return in.read(s.conn)
	}
	p := st.Room(in.left)
	if len(p) == 0 {
		return in.read(s.conn)
	}
	n, err := s.conn.Read(p)
	if n > 0 {
		in.left -= n
		in.drop = !s.deliver(in.e, p[:n])
	}
	return unless(n > 0, err)
}
