package peerlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

const (
	// MaxMessage is the length of a message in bytes: 16 MiB. Larger things are
	// streams; write them to the channel itself.
	MaxMessage = 16 << 20
	// messageHeader is the length of a message's length, big-endian.
	messageHeader = 4
	// messageStep is how much is allocated ahead of what has been received.
	messageStep = 64 << 10
)

// ErrMessageTooLong is matched when a message is longer than MaxMessage.
var ErrMessageTooLong = errors.New("message longer than 16 MiB")

// Messages cuts a stream into messages: each is its length, four bytes
// big-endian, and then its bytes. Both ends must use it, and nothing else may
// read or write the connection, but deadlines and Close are the connection's
// own. Sending and receiving may run concurrently. A message of no bytes is one.
type Messages struct {
	conn net.Conn

	sending sync.Mutex
	broken  error // a message was cut off; guarded by sending

	receiving sync.Mutex // guards what has been received of the message under way:
	header    [messageHeader]byte
	headerLen int
	body      []byte
	bodyLen   int // of body, what has been received
}

// NewMessages returns the messages of a connection.
func NewMessages(conn net.Conn) *Messages { return &Messages{conn: conn} }

// Send sends a message, as the connection's Write does: it blocks while the
// receiver is behind. A message that was cut off, by a deadline perhaps, breaks
// this direction, as the receiver cannot tell where the next one begins: from
// then on Send fails with the same error.
func (m *Messages) Send(p []byte) error {
	if len(p) > MaxMessage {
		return fmt.Errorf("peerlink: send: %w: it has %d bytes", ErrMessageTooLong, len(p))
	}
	m.sending.Lock()
	defer m.sending.Unlock()
	if m.broken != nil {
		return m.broken
	}
	first := min(len(p), messageStep)
	head := make([]byte, messageHeader+first) // so that small messages are one frame
	binary.BigEndian.PutUint32(head, uint32(len(p)))
	copy(head[messageHeader:], p)
	sent, err := m.conn.Write(head)
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
	for m.headerLen < messageHeader {
		n, err := m.conn.Read(m.header[m.headerLen:])
		m.headerLen += n
		if err != nil && m.headerLen < messageHeader {
			return nil, m.ended(err, m.headerLen == 0)
		}
	}
	want := binary.BigEndian.Uint32(m.header[:])
	if want > MaxMessage {
		return nil, fmt.Errorf("peerlink: receive: %w: the peer announces %d bytes", ErrMessageTooLong, want)
	}
	for m.bodyLen < int(want) {
		if m.bodyLen == len(m.body) {
			grown := make([]byte, min(int(want), max(2*m.bodyLen, messageStep)))
			copy(grown, m.body)
			m.body = grown
		}
		n, err := m.conn.Read(m.body[m.bodyLen:])
		m.bodyLen += n
		if err != nil && m.bodyLen < int(want) {
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

// ended says how the stream ended.
func (m *Messages) ended(err error, between bool) error {
	if err == io.EOF && between {
		return io.EOF
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("peerlink: receive a message: %w", err)
}
