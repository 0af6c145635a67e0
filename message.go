package peerlink

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"sync"

	"peerlink/channel"
)

const (
	// MaxMessage is how many bytes a message has at most unless Messages.Limit says
	// otherwise: 16 MiB. Larger things are streams; write them to the channel itself.
	MaxMessage = 16 << 20
	// messageHeader is the length of a message's length, big-endian.
	messageHeader = 4
	// messageStep is how much is allocated ahead of what has been received.
	messageStep = 64 << 10
	// keptFrame is up to how many bytes the room of a message that was sent is kept
	// for the next one.
	keptFrame = 4 << 10
)

// ErrMessageTooLong is matched when a message is longer than Messages.Limit.
var ErrMessageTooLong = errors.New("message too long")

// Messages cuts a stream into messages: each is its length, four bytes
// big-endian, and then its bytes. Both ends must use it, and nothing else may
// read or write the connection, but deadlines and Close are the connection's
// own. Sending and receiving may run concurrently. A message of no bytes is one.
type Messages struct {
	// Limit is how many bytes a message may have, sent or received: so much a peer
	// can make this side hold, as long as it sends it. 0: MaxMessage. Negative:
	// 2 GiB - 1. Set it before the first use.
	Limit int

	conn net.Conn
	sock *channel.Socket // the same; nil if it is no channel

	sending sync.Mutex
	broken  error  // a message was cut off; guarded by sending
	frame   []byte // for the next small message; guarded by sending

	receiving sync.Mutex // guards what has been received of the message under way:
	header    [messageHeader]byte
	headerLen int
	body      []byte
	bodyLen   int // of body, what has been received
}

// NewMessages returns the messages of a connection.
func NewMessages(conn net.Conn) *Messages {
	sock, _ := conn.(*channel.Socket)
	return &Messages{conn: conn, sock: sock}
}

// check says whether a message of n bytes is too long.
func (m *Messages) check(op string, n uint64) error {
	limit := cmp.Or(m.Limit, MaxMessage)
	if limit < 0 {
		limit = math.MaxInt32
	}
	if n > uint64(limit) {
		return fmt.Errorf("peerlink: %s: %w: it has %d bytes, at most %d are taken", op, ErrMessageTooLong, n, limit)
	}
	return nil
}

// framed returns the length of a message and its first bytes, in one piece so that
// small messages are one frame. sending is held until the piece is sent.
func (m *Messages) framed(p []byte, first int) []byte {
	b := binary.BigEndian.AppendUint32(slices.Grow(m.frame[:0], messageHeader+first), uint32(len(p)))
	b = append(b, p[:first]...)
	if cap(b) <= keptFrame {
		m.frame = b
	}
	return b
}

// Send sends a message, as the connection's Write does: it blocks while the
// receiver is behind. A message that was cut off, by a deadline perhaps, breaks
// this direction, as the receiver cannot tell where the next one begins: from
// then on Send fails with the same error.
func (m *Messages) Send(p []byte) error {
	if err := m.check("send", uint64(len(p))); err != nil {
		return err
	}
	m.sending.Lock()
	defer m.sending.Unlock()
	if m.broken != nil {
		return m.broken
	}
	first := min(len(p), messageStep)
	sent, err := m.conn.Write(m.framed(p, first))
	if err == nil && first < len(p) {
		var n int
		n, err = m.conn.Write(p[first:])
		sent += n
	}
	if err != nil {
		err = fmt.Errorf("peerlink: message cut off after %d of %d bytes: %w", max(sent-messageHeader, 0), len(p), err)
		if sent > 0 {
			m.broken = err
		}
	}
	return err
}

// TrySend sends a message at once or not at all: where the channel's TrySend would
// not take the message and the four bytes of its length, or another message is
// being sent, the error matches ErrWouldBlock. The channel's WaitSend(len(p)+4)
// waits for room. TrySend never blocks. On a connection that is no channel the
// error matches errors.ErrUnsupported.
func (m *Messages) TrySend(p []byte) error {
	if err := m.check("send", uint64(len(p))); err != nil {
		return err
	}
	if m.sock == nil {
		return fmt.Errorf("peerlink: send at once over a %T: %w", m.conn, errors.ErrUnsupported)
	}
	if !m.sending.TryLock() {
		return fmt.Errorf("peerlink: send: another message is being sent: %w", channel.ErrWouldBlock)
	}
	defer m.sending.Unlock()
	if m.broken != nil {
		return m.broken
	}
	return m.sock.TrySend(m.framed(p, len(p)))
}

// SendUnreliable sends a message as one datagram where the link has them (see
// channel.Socket.SendUnreliable): the far end's Receive returns it whole, out of
// turn, or never. On other links, and if it has no bytes, it is TrySend: a message
// for which there is no room is dropped, and the error says so.
func (m *Messages) SendUnreliable(p []byte) error {
	if m.sock == nil || len(p) == 0 || m.sock.MaxDatagram() <= 0 {
		return m.TrySend(p)
	}
	if err := m.check("send", uint64(len(p))); err != nil {
		return err
	}
	return m.sock.SendDatagram(p)
}

// Receive waits for the next message and returns it; the slice is the caller's.
// After the last message of a peer that ended cleanly the error is a bare
// io.EOF; an end within a message matches io.ErrUnexpectedEOF. After a
// deadline Receive may be called again and goes on where it was. It allocates
// at most 64 KiB, or as much again as has arrived, ahead of the bytes. If the peer
// announces too long a message, this and each further Receive returns an error
// that matches ErrMessageTooLong.
func (m *Messages) Receive() ([]byte, error) {
	m.receiving.Lock()
	defer m.receiving.Unlock()
	for {
		if m.sock != nil {
			if p := m.sock.TakeDatagram(); p != nil && m.check("receive", uint64(len(p))) == nil {
				return p, nil // one that is too long is lost, as any may be
			}
		}
		if p, err := m.advance(); p != nil || err != nil {
			return p, err
		}
	}
}

// advance reads once, or twice with the length, and returns the message if that was
// all of it. m.receiving is held.
func (m *Messages) advance() ([]byte, error) {
	if m.headerLen < messageHeader {
		n, err := m.conn.Read(m.header[m.headerLen:])
		if m.headerLen += n; m.headerLen < messageHeader {
			return nil, m.ended(err, m.headerLen == 0)
		}
	}
	announced := binary.BigEndian.Uint32(m.header[:])
	if err := m.check("receive", uint64(announced)); err != nil {
		return nil, err
	}
	want := int(announced) // fits: Limit does
	if m.bodyLen < want {
		if m.bodyLen == len(m.body) {
			grown := make([]byte, min(want, max(2*m.bodyLen, messageStep)))
			copy(grown, m.body)
			m.body = grown
		}
		n, err := m.conn.Read(m.body[m.bodyLen:])
		if m.bodyLen += n; m.bodyLen < want {
			return nil, m.ended(err, false)
		}
	}
	p := m.body[:m.bodyLen:m.bodyLen]
	if p == nil {
		p = []byte{}
	}
	m.headerLen, m.body, m.bodyLen = 0, nil, 0
	return p, nil
}

// ended says how the stream ended, if it has.
func (m *Messages) ended(err error, between bool) error {
	switch {
	case err == nil:
		return nil
	case err == io.EOF && between:
		return io.EOF
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("peerlink: receive a message: %w", err)
}
