package loopback

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"peerlink/carriertest"
	"peerlink/identity"
)

// signaller brings messages to the devices of a site, in other processes, too: what
// the DHT does between machines. The address that a device announces is its UDP
// socket's.
type signaller struct {
	site *carriertest.Site
	self identity.Peer
	net.PacketConn
}

type letter struct {
	From identity.Peer
	Msg  []byte
}

func newSignaller(ctx context.Context, site *carriertest.Site, id *identity.Identity) (*signaller, error) {
	sock, err := new(net.ListenConfig).ListenPacket(ctx, "udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &signaller{site, id.Peer(), sock}, site.Announce(id.DeviceID(), sock.LocalAddr().String())
}

// Send does not block.
func (s *signaller) Send(_ context.Context, to identity.DeviceID, msg []byte) error {
	addr, err := net.ResolveUDPAddr("udp", s.site.Address(to))
	if err != nil {
		return fmt.Errorf("no signaller of device %s", to.Short())
	}
	b, err := json.Marshal(letter{s.self, msg})
	if err != nil {
		return err
	}
	_, err = s.WriteTo(b, addr)
	return err
}

func (s *signaller) Receive(ctx context.Context) (identity.Peer, []byte, error) {
	defer context.AfterFunc(ctx, func() { _ = s.SetReadDeadline(time.Unix(1, 0)) })()
	for b := make([]byte, 64<<10); ; { // the longest UDP datagram
		n, _, err := s.ReadFrom(b)
		if ctx.Err() != nil {
			return identity.Peer{}, nil, context.Cause(ctx)
		}
		if err != nil {
			return identity.Peer{}, nil, err
		}
		var l letter
		if json.Unmarshal(b[:n], &l) == nil {
			return l.From, l.Msg, nil
		}
	}
}
