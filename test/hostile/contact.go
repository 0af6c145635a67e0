//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink"
	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/multiplex"
	"peerlink/tlssock"
)

// What contacts do: the visitor, who is honest, and the turncoat.

// session makes a link that the multiplexer of this source runs.
func (w *world) session(ctx context.Context, as *identity.Identity) (sock *multiplex.Socket, end func(), err error) {
	d := &tlssock.Dialer{Config: tlssock.Config{Identity: as, HandshakeTimeout: deadline}}
	conn, _, err := d.DialAddr(ctx, w.tcp, w.victim)
	if err != nil {
		return nil, nil, err
	}
	sock = multiplex.Client(conn, multiplex.Config{})
	stop := context.AfterFunc(ctx, func() { _ = sock.Close() })
	end = func() {
		stop()
		_ = sock.Close()
	}
	if err := sock.Ready(ctx); err != nil {
		end()
		return nil, nil, err
	}
	return sock, end, nil
}

// open makes a link and opens a channel on it.
func (w *world) open(ctx context.Context, as *identity.Identity, name string) (ch net.Conn, end func(), err error) {
	sock, end, err := w.session(ctx, as)
	if err != nil {
		return nil, nil, err
	}
	if ch, err = sock.Open(ctx, name); err != nil {
		err = errors.Join(err, sock.Err())
		end()
	}
	return ch, end, err
}

// messages opens a channel for messages to the victim over a link of its own.
func (w *world) messages(ctx context.Context, as *identity.Identity) (*peerlink.Messages, func(), error) {
	ch, end, err := w.open(ctx, as, "message://1")
	if err != nil {
		return nil, nil, err
	}
	return peerlink.NewMessages(ch), end, nil
}

// tell says lists, as a contact, and returns once the other side has ended, too.
func (w *world) tell(ctx context.Context, as *identity.Identity, lists ...[]byte) error {
	ch, end, err := w.open(ctx, as, "devices://1")
	if err != nil {
		return err
	}
	defer end()
	ms := peerlink.NewMessages(ch)
	for _, l := range lists {
		if err := ms.Send(l); err != nil {
			return err
		}
	}
	if err := ch.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, ch)
	return err
}

// tellRevoked has the visitor's account revoke one of its devices, and looks whether
// the victim lets that in afterwards.
func tellRevoked(ctx context.Context, w *world, t *tally) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	lost, err := w.visitor.IssueDevice("lost")
	if err != nil {
		t.harmed("%v", err)
		return
	}
	list, err := w.visitor.RevocationList(uint64(time.Now().UnixMilli()), lost.DeviceID())
	if err != nil {
		t.harmed("%v", err)
		return
	}
	b, _ := list.MarshalBinary() // it cannot fail
	// As a device does it: with each link, until the other side has taken it.
	err = w.tell(ctx, w.visitor, b)
	for w.welcomes(ctx, lost) {
		if pause.For(ctx, time.Second) != nil {
			t.harmed("a device that its account has revoked gets in, %v after a contact has said so (it heard: %v)", deadline, err)
			return
		}
		err = w.tell(ctx, w.visitor, b)
	}
}

// welcomes reports whether the victim takes a link of a device.
func (w *world) welcomes(ctx context.Context, as *identity.Identity) bool {
	sock, end, err := w.session(ctx, as)
	if err != nil {
		return false
	}
	defer end()
	return sock.Err() == nil
}

// manyLists says ever newer lists of the turncoat's account, of devices that it has and
// of others that it has revoked, as long as they may be.
func manyLists(ctx context.Context, w *world, t *tally) {
	for number := uint64(time.Now().UnixMilli()); ctx.Err() == nil; number++ {
		b, err := w.list(number)
		if err != nil {
			t.harmed("%v", err)
			return
		}
		if w.tell(ctx, w.turncoat, b) != nil {
			_ = rest(ctx)
		}
		t.tried.Add(1)
	}
}

// list is a device list or a revocation list of the turncoat.
func (w *world) list(number uint64) ([]byte, error) {
	if number%2 == 0 {
		gone := make([]identity.Subject, identity.MaxRevoked)
		for i := range gone {
			gone[i] = identity.DeviceID(random32())
		}
		l, err := w.turncoat.RevocationList(number, gone...)
		if err != nil {
			return nil, err
		}
		return l.MarshalBinary()
	}
	devices := []identity.ListedDevice{{Device: w.turncoat.DeviceID(), Name: "turncoat"}}
	for i := range identity.MaxDevices - 1 {
		devices = append(devices, identity.ListedDevice{Device: identity.DeviceID(random32()), Name: fmt.Sprintf("device %d of list %d", i, number)})
	}
	l, err := w.turncoat.DeviceList(number, devices...)
	if err != nil {
		return nil, err
	}
	return l.MarshalBinary()
}

// parcel is the sender's side of a transfer, by hand.
type parcel struct {
	ch net.Conn
	br *bufio.Reader
}

func (p *parcel) send(kind byte, elems ...any) error {
	body := packed(elems)
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), kind)
	_, err := p.ch.Write(append(b, body...))
	return err
}

// next returns the body of the next frame but those that say nothing.
func (p *parcel) next() (body []byte, err error) {
	var head [5]byte
	for head[4] == 0 {
		if _, err := io.ReadFull(p.br, head[:]); err != nil {
			return nil, err
		}
		body = make([]byte, min(binary.BigEndian.Uint32(head[:]), 2<<20))
		if _, err := io.ReadFull(p.br, body); err != nil {
			return nil, err
		}
	}
	return body, nil
}

// emptyFolders sends parcels of folders in which there is nothing, as many as are
// taken.
func emptyFolders(ctx context.Context, w *world, t *tally) {
	for i := 0; ctx.Err() == nil; i++ {
		if w.sendFolders(ctx, fmt.Sprintf("parcel %d", i), []int{1 << 20, maxFiles}[i%2], t) != nil {
			_ = rest(ctx)
		}
	}
}

func (w *world) sendFolders(ctx context.Context, name string, entries int, t *tally) error {
	const window = 256
	id := random16()
	ch, end, err := w.open(ctx, w.turncoat, fmt.Sprintf("files://%x", id))
	if err != nil {
		return err
	}
	defer end()
	p := &parcel{ch, bufio.NewReader(ch)}
	if err := p.send(1, 2, id[:], uint64(entries), uint64(0), []string{name}); err != nil {
		return err
	}
	body, err := p.next()
	if err != nil {
		return err
	}
	var answer []any
	if err := msgpack.Unmarshal(body, &answer); err != nil || len(answer) == 0 || answer[0] != true {
		return fmt.Errorf("the offer is refused: %v %w", answer, err)
	}
	for sent, over := 0, 0; sent < entries; sent++ {
		path := []string{name}
		if sent > 0 {
			path = append(path, fmt.Sprintf("folder %d", sent))
		}
		if err := p.send(3, uint64(sent), path, true, uint64(0), uint64(0), false); err != nil {
			return err
		}
		t.tried.Add(1)
		for ; sent-over >= window-1; over++ {
			if _, err := p.next(); err != nil {
				return err
			}
		}
	}
	return nil
}
