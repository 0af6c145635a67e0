package dht

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
)

// listen has one node push this device's signals, and hands them to the inbox,
// until ctx is done or the stream ends. accepted is called when the node took
// the proof, with its time.
func (p *presence) listen(ctx context.Context, node peer.ID, accepted func(ahead time.Duration)) error {
	hctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	s, err := p.n.host.NewStream(hctx, node, pushProtocol)
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	r := bufio.NewReader(s)
	told, err := introduce(s, r, p.me, node, p.n.host.ID())
	if err != nil {
		return err
	}
	ahead := time.Duration(0)
	if !told.IsZero() {
		ahead = p.n.cfg.now().Sub(told)
	}
	p.n.host.ConnManager().Protect(node, subscriberTag)
	defer p.n.host.ConnManager().Unprotect(node, subscriberTag)
	accepted(ahead)
	for {
		sealed, err := readKind(r, kindSignal, maxSealedLen)
		if errors.Is(err, errOversize) {
			p.n.drops.add(dropOversize)
		}
		if err != nil {
			return err
		}
		p.inbox.take(node, sealed)
	}
}

// introduce proves to node that this host listens for me. It returns what time
// it is by the node's clock; zero if the node does not say.
func introduce(s network.Stream, r io.Reader, me *identity.Identity, node, self peer.ID) (told time.Time, err error) {
	if err := s.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return told, err
	}
	device := me.DeviceID()
	if _, err := s.Write(appendFrame(nil, kindListen, device[:])); err != nil {
		return told, err
	}
	nonce, err := readKind(r, kindChallenge, nonceLen)
	if err != nil {
		return told, err
	}
	if len(nonce) != nonceLen {
		return told, fmt.Errorf("push: a nonce of %d bytes, want %d", len(nonce), nonceLen)
	}
	proof, err := encodeProof(me, listenStatement(nonce, device, node, self))
	if err != nil {
		return told, err
	}
	if _, err := s.Write(appendFrame(nil, kindProof, proof)); err != nil {
		return told, err
	}
	b, err := readKind(r, kindListening, timeLen)
	if err != nil {
		return told, err
	}
	if len(b) == timeLen {
		if ms := binary.BigEndian.Uint64(b); ms > 0 && ms <= maxUnixMilli {
			told = time.UnixMilli(int64(ms))
		}
	}
	return told, s.SetDeadline(time.Time{})
}

// listenHere takes the signals that are put to this node itself: as a server it
// may be among the nearest, and nobody else would tell it.
func (p *presence) listenHere(ctx context.Context) {
	self := p.n.host.ID()
	p.n.life.Go(func(context.Context) {
		l, err := p.n.hub.listen(time.Now(), p.me.DeviceID(), origin{})
		if err != nil {
			p.log.Error("dht: this node does not serve its own device", "err", err)
			return
		}
		defer p.n.hub.leave(l)
		for {
			select {
			case <-ctx.Done():
				return
			case <-l.evict:
				return
			case sealed := <-l.queue:
				p.inbox.take(self, sealed)
			}
		}
	})
}
