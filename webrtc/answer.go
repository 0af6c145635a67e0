package webrtc

import (
	"context"
	"fmt"
	"net"

	"peerlink/identity"
	"peerlink/internal/calls"
)

// Answer makes the stream of a call from another device.
func (t carrier) Answer(ctx context.Context, v *calls.Visit[*message], offer *message) (net.Conn, identity.Peer, error) {
	s, err := t.newSession(ctx, callee, v.ID, v.From.Device, v.Price())
	if err != nil {
		return nil, identity.Peer{}, err
	}
	if calls.Unproven(v.From) {
		s.admit = v.Admit
	}
	conn, peer, err := t.meet(ctx, v, s, offer)
	if err != nil {
		s.hangUp()
		return nil, identity.Peer{}, err
	}
	return conn, peer, nil
}

func (t carrier) meet(ctx context.Context, v *calls.Visit[*message], s *session, offer *message) (*Conn, identity.Peer, error) {
	sdp, err := s.answer(offer)
	if err != nil {
		v.Refuse(0, "the offer cannot be answered")
		return nil, identity.Peer{}, err
	}
	v.Attach(s)
	s.gather(ctx)
	reply := func() error {
		return t.Post(ctx, s.peer, &message{kind: calls.Answer, id: s.id, sdp: sdp, candidates: s.all()})
	}
	if err := reply(); err != nil {
		return nil, identity.Peer{}, fmt.Errorf("send the answer: %w", err)
	}
	settled, stop := context.WithCancel(ctx)
	defer stop()
	t.board.Go(func(context.Context) { s.trickle(ctx) })
	t.board.Go(func(context.Context) {
		for {
			select {
			case <-v.Again:
				if err := reply(); err != nil {
					t.log.Debug("webrtc: send the answer again", "to", s.peer, "err", err)
				}
			case <-settled.Done():
				return
			}
		}
	})
	return s.secure(ctx)
}
