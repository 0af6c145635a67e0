package dht

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
)

// messenger asks single nodes to store a record or to show it. The library's
// PutValue reports success when every node refused; this knows who took it.
type messenger struct {
	host host.Host
	pm   *pb.ProtocolMessenger
}

func newMessenger(h host.Host) (*messenger, error) {
	m := &messenger{host: h}
	var err error
	m.pm, err = pb.NewProtocolMessenger(m)
	return m, err
}

// maxReplyLen bounds a node's reply: a record and twenty peers' addresses.
const maxReplyLen = 64 << 10

// requestTimeout bounds one request to one node, dialling included.
const requestTimeout = 10 * time.Second

// SendRequest implements pb.MessageSender on a stream of its own, which costs
// no round trip once the node's protocols are known.
func (m *messenger) SendRequest(ctx context.Context, p peer.ID, msg *pb.Message) (*pb.Message, error) {
	s, err := m.host.NewStream(ctx, p, kadProtocol)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	defer func() { _ = s.Reset() }()
	var b bytes.Buffer // one write: one packet
	if _, err := protodelim.MarshalTo(&b, msg); err != nil {
		return nil, err
	}
	if _, err := s.Write(b.Bytes()); err != nil {
		return nil, err
	}
	raw, err := msgio.NewVarintReaderSize(s, maxReplyLen).ReadMsg()
	if err != nil {
		return nil, err
	}
	reply := new(pb.Message)
	return reply, proto.Unmarshal(raw, reply)
}

// SendMessage implements pb.MessageSender; nothing here sends without an answer.
func (m *messenger) SendMessage(context.Context, peer.ID, *pb.Message) error {
	return errors.ErrUnsupported
}

// put stores value at p and reads it back. newer is the value p holds instead.
func (m *messenger) put(ctx context.Context, p peer.ID, key string, value []byte) (newer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	putErr := m.pm.PutValue(ctx, p, record.MakePutRecord(key, value))
	rec, _, err := m.pm.GetValue(ctx, p, key)
	switch {
	case err != nil:
		return nil, errors.Join(putErr, err)
	case rec == nil && putErr != nil:
		return nil, fmt.Errorf("the node refused the record: %w", putErr)
	case rec == nil:
		return nil, errors.New("the node said it stored the record, but does not have it")
	case string(rec.GetValue()) != string(value):
		return rec.GetValue(), errors.New("the node has another record")
	}
	return nil, nil
}
