// Package callstest has a signaller within one process, for the tests of carriers.
package callstest

import (
	"context"
	"fmt"
	"sync"

	"peerlink/identity"
)

// Exchange carries messages between the devices that have joined it, in order,
// each once. Make one with New; its methods may be called concurrently.
type Exchange struct {
	mu    sync.Mutex
	boxes map[identity.DeviceID]*Mailbox
}

// New returns an Exchange without devices.
func New() *Exchange { return &Exchange{boxes: make(map[identity.DeviceID]*Mailbox)} }

// Letter is a message on its way.
type Letter struct {
	From identity.Peer
	Msg  []byte
}

// Mailbox is one device's end of an Exchange, a signaller. Its fields are set
// before the first message.
type Mailbox struct {
	// Self is the name under which it sends.
	Self identity.Peer
	// In has what waits to be received, at most 1 024 messages.
	In chan Letter
	// Alter returns what is sent in place of a message; nil is nothing, and loses
	// it. A nil Alter passes all as it is.
	Alter func(to identity.DeviceID, msg []byte) ([]byte, error)

	x *Exchange
}

// Join returns a device's mailbox.
func (x *Exchange) Join(id *identity.Identity) *Mailbox {
	m := &Mailbox{x: x, Self: id.Peer(), In: make(chan Letter, 1024)}
	x.Redirect(id.DeviceID(), m)
	return m
}

// Redirect has a mailbox get a device's messages. A Mailbox that is the zero value
// takes none, and its sender waits.
func (x *Exchange) Redirect(of identity.DeviceID, to *Mailbox) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.boxes[of] = to
}

// Send sends a message, as altered, to a device that has joined. It blocks while
// the device's mailbox is full, until ctx ends.
func (m *Mailbox) Send(ctx context.Context, to identity.DeviceID, msg []byte) error {
	if m.Alter != nil {
		var err error
		if msg, err = m.Alter(to, msg); err != nil || msg == nil {
			return err
		}
	}
	return m.Pass(ctx, to, msg)
}

// Pass is Send without Alter.
func (m *Mailbox) Pass(ctx context.Context, to identity.DeviceID, msg []byte) error {
	m.x.mu.Lock()
	box := m.x.boxes[to]
	m.x.mu.Unlock()
	if box == nil {
		return fmt.Errorf("no mailbox of %s", to.Short())
	}
	select {
	case box.In <- Letter{m.Self, msg}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Receive returns the next message and its sender. It blocks until there is one,
// or ctx ends.
func (m *Mailbox) Receive(ctx context.Context) (identity.Peer, []byte, error) {
	select {
	case l := <-m.In:
		return l.From, l.Msg, nil
	case <-ctx.Done():
		return identity.Peer{}, nil, ctx.Err()
	}
}
