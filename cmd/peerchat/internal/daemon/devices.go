package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"peerlink"
	"peerlink/account"
	"peerlink/channel"
	"peerlink/cmd/peerchat/internal/contacts"
	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/pause"
	"peerlink/internal/quota"
)

// devicesURI is under which devices tell each other signed lists: which devices
// an account has, and which are revoked.
const devicesURI = "devices://1"

const (
	// maxLists is how many lists a side may say on a channel: a device list and
	// the revocation lists of one number.
	maxLists = 8
	// maxListLen is the length of a list in bytes: the longest, of 1 024
	// revocations, has 33 992.
	maxListLen = 40 << 10
	// maxTelling is how many channels with lists there may be in each direction with
	// contacts and the account's own devices; strangers have half as many beside them.
	maxTelling = 64
	// maxOfMember is how many of them may be with one device: the two ends may begin at
	// once, and again before the first have ended. A stranger has one.
	maxOfMember = 4
	// tellTimeout is how long an exchange may take, once there is a link.
	tellTimeout = 10 * time.Second
	// The pauses before a device is asked again that was not told, or that said too much
	// at once: they double.
	firstAgain = time.Second
	lastAgain  = time.Minute
	// listEvery is how often a new list of one account is taken, after the first
	// maxLists, which is what one telling may have: each is a write, and has all links
	// checked.
	listEvery = time.Minute
)

// errTooSoon is why new lists of an account are put off.
var errTooSoon = errors.New("too many new lists of this account in a minute: it is asked again")

// exchanges bounds the channels of one direction.
func exchanges() *quota.Quota[identity.DeviceID] {
	return quota.NewPools[identity.DeviceID](quota.Limits{Each: maxOfMember, All: maxTelling}, quota.Limits{Each: 1, All: maxTelling / 2})
}

// newLists bounds how often new lists of each account are taken.
func newLists() *quota.Rates[identity.AccountID] {
	return quota.NewRates[identity.AccountID](contacts.MaxContacts, rate.Every(listEvery), maxLists)
}

// devices keeps an account's devices and its contacts up to date about each
// other: it notes whose devices make links, and exchanges lists.
type devices struct {
	acc     *account.Account
	m       *peerlink.ConnectionManager
	book    *book
	log     *slog.Logger
	life    *life.Group
	places  *quota.Quota[identity.DeviceID] // of channels of others
	telling *quota.Quota[identity.DeviceID] // of own ones
	lists   *quota.Rates[identity.AccountID]

	mu    sync.Mutex
	seen  map[identity.DeviceID]time.Time // of the account's own devices
	later map[identity.DeviceID]struct{}  // those that are asked again
}

// openDevices begins to listen to others' lists, and to tell them, until the
// daemon's life ends.
func (d *Daemon) openDevices() error {
	m := d.acc.ConnectionManager()
	l, err := m.Listen(devicesURI)
	if err != nil {
		return err
	}
	d.onClose(l.Close)
	v := &devices{
		acc: d.acc, m: m, book: d.contacts, log: d.log, life: &d.life,
		places: exchanges(), telling: exchanges(),
		lists: newLists(),
		seen:  map[identity.DeviceID]time.Time{}, later: map[identity.DeviceID]struct{}{},
	}
	d.devices = v
	events := m.Events(d.life.Context()) // from now on, not from when the goroutine runs
	v.life.Go(func(context.Context) {
		v.before()
		for e := range events {
			v.event(e)
		}
	})
	v.life.Go(func(context.Context) { v.accept(l) })
	return nil
}

// before takes note of the links that came up before there was a daemon. What a friend
// had to tell on one was declined, so it is asked.
func (v *devices) before() {
	for l := range v.m.Links() {
		v.met(l.Peer, l.Created)
		v.book.shown(l.Peer)
		if v.friend(l.Peer) || len(v.say(l.Peer)) > 0 {
			v.life.Go(func(ctx context.Context) { v.tell(ctx, l.Peer) })
		}
	}
}

// own reports whether a device is one of the account's.
func (v *devices) own(p identity.Peer) bool {
	return !p.Account.IsZero() && p.Account == v.acc.Identity().AccountID()
}

// event notes who made a link, and tells them what they are to know.
func (v *devices) event(e peerlink.Event) {
	if e.Kind != peerlink.LinkUp && e.Kind != peerlink.LinkDown {
		return
	}
	v.met(e.Peer, e.At)
	if e.Kind == peerlink.LinkUp {
		v.book.shown(e.Peer)
	}
	if e.Kind == peerlink.LinkUp && len(v.say(e.Peer)) > 0 {
		v.life.Go(func(ctx context.Context) { v.tell(ctx, e.Peer) })
	}
}

// met notes a link to a device, begun or ended.
func (v *devices) met(p identity.Peer, at time.Time) {
	if v.own(p) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if len(v.seen) < 4*identity.MaxDevices || !v.seen[p.Device].IsZero() {
			v.seen[p.Device] = at
		}
		return
	}
	if v.acc.Trust().Check(p) != nil {
		return // it may have a link that is just being cut
	}
	if err := v.book.Met(p, at); err != nil {
		v.log.Warn("devices: what a contact's device has shown is not kept", "peer", p, "err", err)
	}
}

// say returns the lists that a device is to know: whom the account has revoked,
// and, if it is a contact's or the account's own, which devices there are.
func (v *devices) say(to identity.Peer) [][]byte {
	var out [][]byte
	for _, l := range v.ownRevocations() { // before the devices that are left, so that none comes back
		b, _ := l.MarshalBinary() // cannot fail
		out = append(out, b)
	}
	if l := v.acc.Devices(); l != nil && v.friend(to) {
		b, _ := l.MarshalBinary()
		out = append(out, b)
	}
	return out[:min(len(out), maxLists)]
}

// ownRevocations are the revocation lists that the account itself has signed.
func (v *devices) ownRevocations() (out []*identity.RevocationList) {
	for _, l := range v.acc.Revocations() {
		if l.Issuer() == v.acc.Identity().AccountID() {
			out = append(out, l)
		}
	}
	return out
}

// friend reports whether a device is the account's or a contact's.
func (v *devices) friend(p identity.Peer) bool {
	if v.own(p) {
		return true
	}
	_, is := v.book.OfPeer(p)
	return is
}

// take gives a place for a channel with a device: it is known whose it is.
func (v *devices) take(places *quota.Quota[identity.DeviceID], p identity.Peer) error {
	if v.acc.Trust().Member(p) {
		return places.Take(p.Device)
	}
	return places.TakeStranger(p.Device)
}

// tell exchanges lists with a device to which there is a link, and has a member that
// did not hear asked again. It reports whether the device was told.
func (v *devices) tell(ctx context.Context, to identity.Peer) bool {
	err := v.tellOnce(ctx, to)
	if err == nil || errors.Is(err, errTooSoon) {
		return true
	}
	v.log.Debug("devices: not told", "peer", to, "err", err)
	if !errors.Is(err, peerlink.ErrNoListener) {
		v.again(to)
	}
	return false
}

func (v *devices) tellOnce(ctx context.Context, to identity.Peer) error {
	if err := v.take(v.telling, to); err != nil {
		return err
	}
	defer v.telling.Release(to.Device)
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	sock, err := v.m.ConnectDevice(ctx, to.Device, devicesURI, peerlink.ConnectOptions{Mode: peerlink.OnlyIfConnected})
	if err != nil {
		return err
	}
	return v.exchange(sock)
}

// again exchanges lists with a member once more, with pauses, until that has worked or
// there is no link: with the next one it is done anyway.
func (v *devices) again(p identity.Peer) {
	if !v.acc.Trust().Member(p) {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, on := v.later[p.Device]; on {
		return
	}
	v.later[p.Device] = struct{}{}
	v.life.Go(func(ctx context.Context) {
		defer func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			delete(v.later, p.Device)
		}()
		pauses := pause.Backoff(firstAgain, lastAgain)
		for pause.For(ctx, pauses.NextBackOff()) == nil && v.m.IsConnected(p.Device) {
			if err := v.tellOnce(ctx, p); err == nil || errors.Is(err, peerlink.ErrNoListener) {
				return
			}
		}
	})
}

// exchange tells the device at the other end of a channel what it is to know, and
// hears it.
func (v *devices) exchange(sock *channel.Socket) error {
	defer sock.Close()
	defer context.AfterFunc(v.life.Context(), func() { _ = sock.Close() })()
	peer, ok := peerlink.PeerOf(sock)
	if !ok {
		return errors.New("a channel that is no channel")
	}
	_ = sock.SetDeadline(time.Now().Add(tellTimeout))
	ms := peerlink.NewMessages(bounded(sock))
	if err := send(ms, sock, v.say(peer)); err != nil {
		return err
	}
	return v.hear(ms, peer)
}

// send says lists and that there are no more.
func send(ms *peerlink.Messages, sock *channel.Socket, lists [][]byte) error {
	for _, b := range lists {
		if err := ms.Send(b); err != nil {
			return err
		}
	}
	return sock.CloseWrite()
}

// hear takes lists until there are no more. With errTooSoon all were heard, but some
// not taken, and the device is asked again.
func (v *devices) hear(ms *peerlink.Messages, from identity.Peer) (late error) {
	for range maxLists {
		b, err := ms.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch err := v.believe(b, from); {
		case errors.Is(err, errTooSoon):
			late = err
		case err != nil:
			v.log.Info("devices: a list is refused", "from", from, "err", err)
		}
	}
	if late != nil {
		v.again(from)
	}
	return late
}

// bounded returns a connection from which no more can be read than a peer may say.
func bounded(c net.Conn) net.Conn {
	return &boundedConn{Conn: c, left: maxLists * (maxListLen + 4)}
}

type boundedConn struct {
	net.Conn
	left int // of what may be read; only the one reader has it
}

// Read implements net.Conn.
func (c *boundedConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, errors.New("devices: more than a device may say")
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// accept hears others.
func (v *devices) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		sock, ok := conn.(*channel.Socket)
		peer, known := peerlink.PeerOf(conn)
		if !ok || !known {
			_ = conn.Close()
			continue
		}
		if v.take(v.places, peer) != nil {
			unwanted(sock)
			continue
		}
		begun := v.life.Go(func(context.Context) {
			defer v.places.Release(peer.Device)
			v.answer(sock, peer)
		})
		if !begun {
			v.places.Release(peer.Device)
		}
	}
}

// answer hears a device and tells it the same.
func (v *devices) answer(sock *channel.Socket, peer identity.Peer) {
	defer sock.Close()
	defer context.AfterFunc(v.life.Context(), func() { _ = sock.Close() })()
	_ = sock.SetDeadline(time.Now().Add(tellTimeout))
	ms := peerlink.NewMessages(bounded(sock))
	err := v.hear(ms, peer)
	if err == nil || errors.Is(err, errTooSoon) {
		err = send(ms, sock, v.say(peer))
	}
	if err == nil {
		_, err = io.Copy(io.Discard, sock) // until it has read that
	}
	if err != nil {
		v.log.Debug("devices: an exchange ended early", "peer", peer, "err", err)
	}
}

// believe takes a list that a device has said, if it is about the device's own
// account and that is a contact's or this one's. Whoever else says something says
// it to nobody.
func (v *devices) believe(b []byte, from identity.Peer) error {
	if len(b) > maxListLen {
		return fmt.Errorf("a list of %d bytes", len(b))
	}
	if !v.friend(from) {
		return nil
	}
	list, err := identity.ParseList(b)
	if err != nil {
		return err
	}
	var changed bool
	switch l := list.(type) {
	case *identity.DeviceList:
		changed, err = v.learn(l, from)
	case *identity.RevocationList:
		changed, err = v.revoked(l, from)
	}
	if err != nil {
		return err
	}
	if changed && v.own(from) { // the account's other devices and contacts are to know, too
		v.life.Go(func(ctx context.Context) { v.push(ctx, from.Device) })
	}
	return nil
}

// soon returns errTooSoon if no new list of an account may be taken now.
func (v *devices) soon(a identity.AccountID) error {
	if !v.lists.Allow(a, time.Now()) {
		return errTooSoon
	}
	return nil
}

// learn takes a device list, if it is newer than the one that is held.
func (v *devices) learn(l *identity.DeviceList, from identity.Peer) (changed bool, err error) {
	if l.Account() != from.Account {
		return false, fmt.Errorf("%s, said by a device of account %s", l, from.Account.Short())
	}
	var held uint64
	if v.own(from) {
		if own := v.acc.Devices(); own != nil {
			held = own.Number()
		}
	} else if c, ok := v.book.OfPeer(from); ok {
		held = c.Number
	}
	if l.Number() <= held {
		return false, nil
	}
	if err := v.soon(from.Account); err != nil {
		return false, err
	}
	if v.own(from) {
		return v.acc.LearnDevices(l)
	}
	if changed, err = v.book.Learn(l); changed {
		v.book.changed.Ring()
	}
	return changed, err
}

// revoked takes a revocation list; links to those whom it names end at once.
func (v *devices) revoked(l *identity.RevocationList, from identity.Peer) (changed bool, err error) {
	if l.Issuer() != from.Account {
		return false, fmt.Errorf("%s, said by a device of account %s", l, from.Account.Short())
	}
	for _, held := range v.acc.Revocations() {
		if held.Issuer() == l.Issuer() && (held.Number() > l.Number() || held.Digest() == l.Digest()) {
			return false, nil
		}
	}
	if err := v.soon(from.Account); err != nil {
		return false, err
	}
	b, _ := l.MarshalBinary() // cannot fail
	if _, err := v.acc.ImportRevocations(b); err != nil {
		return false, err
	}
	v.log.Info("devices: a contact's account has revoked devices", "list", l, "said by", from)
	return true, nil
}

// push tells all devices to which there are links but one, and returns how many
// there were and how many have heard it.
func (v *devices) push(ctx context.Context, but identity.DeviceID) (connected, told int) {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	turns := make(chan struct{}, maxTelling/2)
	peers := map[identity.DeviceID]identity.Peer{}
	for l := range v.m.Links() {
		if l.Peer.Device != but && len(v.say(l.Peer)) > 0 {
			peers[l.Peer.Device] = l.Peer
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, p := range peers {
		wg.Go(func() {
			select {
			case turns <- struct{}{}:
				defer func() { <-turns }()
			case <-ctx.Done():
				v.again(p)
				return
			}
			if v.tell(ctx, p) {
				mu.Lock()
				defer mu.Unlock()
				told++
			}
		})
	}
	wg.Wait()
	return len(peers), told
}
