package daemon

import (
	"context"
	"iter"
	"net"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
)

// talkNet is the manager as the chat sees it: a conversation is with a contact, by
// the device that the contact was added with, whichever of its devices is there. A
// message goes to the first that takes it.
type talkNet struct{ d *Daemon }

func (n talkNet) manager() *peerlink.ConnectionManager { return n.d.acc.ConnectionManager() }

// ConnectDevice asks whichever device of the contact is there.
func (n talkNet) ConnectDevice(ctx context.Context, to identity.DeviceID, uri string, opts peerlink.ConnectOptions) (*channel.Socket, error) {
	return n.d.connectAny(ctx, to, uri, opts)
}

// Events are the manager's, but for whose devices they are about.
func (n talkNet) Events(ctx context.Context) iter.Seq[peerlink.Event] {
	all := n.manager().Events(ctx)
	return func(yield func(peerlink.Event) bool) {
		for e := range all {
			e.Peer = n.d.contacts.talker(e.Peer)
			if !yield(e) {
				return
			}
		}
	}
}

// Listen is the manager's, but for who is said to be there. A device that has left its
// contact's account is declined, as the conversation is the contact's.
func (n talkNet) Listen(pattern string) (net.Listener, error) {
	l, err := n.manager().ListenFunc(pattern, func(_ context.Context, p identity.Peer, _ string) error {
		return n.d.contacts.displaced(p)
	})
	if err != nil {
		return nil, err
	}
	return talkListener{l, n.d.contacts}, nil
}

// member reports whether room of its own is kept for a peer, as Trust.Member does,
// also of a contact's conversation by the device of which that is known. Of a
// conversation the device is all that is known: its account has proven nothing here.
func (d *Daemon) member(p identity.Peer) bool {
	if p.Account.IsZero() {
		_, known := d.contacts.Of(p.Device)
		return known || d.acc.Trusted(p.Device) == identity.Allowed
	}
	_, known := d.contacts.OfPeer(p)
	return known || d.acc.Trust().Member(p)
}

// talker returns a proven device as the one by which its contact's conversation is
// known.
func (b *book) talker(p identity.Peer) identity.Peer {
	if c, ok := b.OfPeer(p); ok {
		p.Device = c.Device
	}
	return p
}

type talkListener struct {
	net.Listener
	book *book
}

// Accept implements net.Listener.
func (l talkListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	peer, ok := peerlink.PeerOf(c)
	if !ok {
		return c, nil
	}
	return talkConn{c, &peerlink.Addr{Peer: l.book.talker(peer)}}, nil
}

type talkConn struct {
	net.Conn
	peer *peerlink.Addr
}

// RemoteAddr implements net.Conn.
func (c talkConn) RemoteAddr() net.Addr { return c.peer }
