package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"peerlink"
	"peerlink/channel"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/forward"
	"peerlink/identity"
	"peerlink/internal/quota"
)

const (
	// bufferLen of one direction of a channel: four of the frames that a TLS
	// carrier's link has.
	bufferLen = 64 << 10
	// takeTimeout is how long a channel waits to be taken.
	takeTimeout = 10 * time.Second
	// membersEach and strangersEach are how many channels one device has that
	// commands listen for, taken or not, and membersAll and strangersAll how many
	// there are in all: a command that is asked has bounds of its own, below these.
	membersEach, membersAll     = 128, 256
	strangersEach, strangersAll = 32, 128
	// maxNotices is how many declined devices wait to be told of, and how many are told
	// of at once: then it is one a second, and of one device two and then one a minute.
	// A command that is busy misses the others.
	maxNotices = 8
)

// connect opens a channel for a command.
func (d *Daemon) connect(ctx context.Context, c *control.Call) error {
	var to control.Connect
	if err := c.Decode(&to); err != nil {
		return err
	}
	if to.Addr != "" {
		if err := d.acc.Learn(to.Device, to.Addr); err != nil {
			return err
		}
	}
	opts := peerlink.ConnectOptions{}
	if to.OnlyIfConnected {
		opts.Mode = peerlink.OnlyIfConnected
	}
	if to.Within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, to.Within)
		defer cancel()
	}
	call := d.dial
	if to.Any {
		call = d.connectAny
	}
	sock, err := call(ctx, to.Device, to.URI, opts)
	if err != nil {
		return err
	}
	return d.hand(c, sock)
}

// hand gives a channel to the command and carries its bytes until it has ended.
func (d *Daemon) hand(c *control.Call, sock *channel.Socket) error {
	peer, _ := peerlink.PeerOf(sock)
	conn, err := c.Conn(sock.URI(), d.acc.Identity().Peer(), peer)
	if err != nil {
		_ = sock.Reset(channel.CodeInternal)
		return err
	}
	carry(conn, sock)
	return nil
}

// carry moves bytes, ends and resets between a command and a channel until both
// directions have ended.
func carry(c *control.Conn, s *channel.Socket) {
	upc := make(chan struct{})
	go func() {
		defer close(upc)
		up(c, s)
	}()
	down(c, s)
	<-upc
	_ = s.Close()
	_ = c.Close()
}

// pump carries bytes until from has no more, which read tells, io.EOF included,
// or until to takes no more, which write tells.
func pump(to io.Writer, from io.Reader) (read, write error) {
	buf := make([]byte, bufferLen)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return nil, err
			}
		}
		if err != nil {
			return err, nil
		}
	}
}

// up carries what the command sends.
func up(c *control.Conn, s *channel.Socket) {
	err, write := pump(s, c)
	if write != nil {
		c.Stop(cause(write))
		return
	}
	if err == io.EOF {
		_ = s.CloseWrite()
		err = c.AwaitClose()
	}
	var reset *channel.ResetError
	switch {
	case err == nil:
		_ = s.Close()
	case errors.As(err, &reset):
		_ = s.Reset(reset.Code)
	default: // the command was killed: that is no end
		_ = s.Reset(channel.CodeInternal)
	}
}

// down carries what the peer sends. If the command takes it no more, up hears
// of that.
func down(c *control.Conn, s *channel.Socket) {
	switch read, write := pump(c, s); {
	case write != nil:
	case read == io.EOF:
		_ = c.CloseWrite()
	default:
		c.Fail(cause(read))
	}
}

// cause takes off what names the daemon's own end.
func cause(err error) error {
	if op, ok := errors.AsType[*channel.OpError](err); ok {
		return op.Err
	}
	return err
}

// offers are the channels that wait for their commands.
type offers struct {
	mu      sync.Mutex
	waiting map[string]*offer // nil once closed
}

type offer struct {
	sock  *channel.Socket
	by    peerlink.ChannelListener // that of the command that listens
	free  func()                   // gives the channel's place back
	timer *time.Timer
}

// refuse resets a channel, and gives its place back.
func (of *offer) refuse() {
	unwanted(of.sock)
	of.free()
}

// unwanted resets a channel that no command took.
func unwanted(sock *channel.Socket) { _ = sock.Reset(channel.CodeNotAccepted) }

// add keeps a channel for a while and returns the word for it.
func (o *offers) add(of *offer) (string, error) {
	token := rand.Text()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting == nil {
		return "", net.ErrClosed
	}
	of.timer = time.AfterFunc(takeTimeout, func() {
		if of := o.take(token); of != nil {
			of.refuse()
		}
	})
	o.waiting[token] = of
	return token, nil
}

func (o *offers) take(token string) *offer {
	o.mu.Lock()
	defer o.mu.Unlock()
	of := o.waiting[token]
	if of != nil {
		of.timer.Stop()
		delete(o.waiting, token)
	}
	return of
}

// drop refuses the channels of one command's listener, or, for nil, all from now on.
func (o *offers) drop(by peerlink.ChannelListener) {
	o.mu.Lock()
	var dropped []*offer
	for token, of := range o.waiting {
		if by == nil || of.by == by {
			of.timer.Stop()
			delete(o.waiting, token)
			dropped = append(dropped, of)
		}
	}
	if by == nil {
		o.waiting = nil
	}
	o.mu.Unlock()
	for _, of := range dropped {
		of.refuse()
	}
}

// listen claims a pattern for a command, as long as the command is there.
func (d *Daemon) listen(ctx context.Context, c *control.Call) error {
	var what control.Listen
	if err := c.Decode(&what); err != nil {
		return err
	}
	refused := make(chan identity.Peer, maxNotices)
	ofDevice, inAll := quota.NewRates[identity.DeviceID](256, rate.Every(time.Minute), 2), rate.NewLimiter(1, maxNotices)
	var turn sync.Mutex // is locked while a device may have the one channel
	l, err := d.claim(what.Pattern, func(_ context.Context, peer identity.Peer, _ string) error {
		switch {
		case !d.mayOpen(what, peer):
			if ofDevice.Allow(peer.Device, time.Now()) && inAll.Allow() {
				select {
				case refused <- peer:
				default:
				}
			}
			return errMayNot
		case what.One && !turn.TryLock():
			return errTaken
		case what.One: // by then the channel was taken, or is given up
			time.AfterFunc(takeTimeout, turn.Unlock)
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer l.Close()
	if err := c.Answer(""); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var answering sync.Mutex
	answer := func(o control.Offer) error {
		answering.Lock()
		defer answering.Unlock()
		return c.Answer(o)
	}
	wg.Go(func() {
		for {
			select {
			case peer := <-refused:
				_ = answer(control.Offer{Refused: &peer})
			case <-ctx.Done():
				return
			}
		}
	})
	return d.announce(ctx, what, l, answer)
}

// announce offers what a listener accepts to the command that has claimed it. Which
// channels have no place is found out at once, so that none waits behind them.
func (d *Daemon) announce(ctx context.Context, what control.Listen, l peerlink.ChannelListener, answer func(control.Offer) error) error {
	defer d.offers.drop(l)
	for {
		sock, err := l.AcceptChannel(ctx)
		if err != nil {
			return nil // the command has gone, or the daemon ends
		}
		peer, _ := peerlink.PeerOf(sock)
		give := d.places.TakeStranger
		if d.member(peer) || !what.Open() && d.mayOpen(what, peer) {
			give = d.places.Take
		}
		if give(peer.Device) != nil {
			_ = sock.Reset(channel.CodeResource)
			continue
		}
		of := &offer{sock: sock, by: l, free: func() { d.places.Release(peer.Device) }}
		word, err := d.offers.add(of)
		if err != nil {
			of.refuse()
			return nil
		}
		if err := answer(control.Offer{Word: word}); err != nil {
			return nil
		}
	}
}

// errMayNot is what a device is told that a command does not want.
var errMayNot = errors.New("you may not join (for a pipe its user can allow it: peerchat pipe allow)")

// errTaken is what a device is told that is not the first one.
var errTaken = errors.New("it is already taken by another device, and takes one at a time: what listens there has to be started again")

// mayOpen tells whether a device may have one of the channels that a command
// wants.
func (d *Daemon) mayOpen(what control.Listen, peer identity.Peer) bool {
	d.contacts.shown(peer) // before its command asks whose it is
	if what.Open() {
		return true
	}
	contact, known := d.contacts.OfPeer(peer)
	is := func(id identity.DeviceID) bool {
		return known && id == contact.Device || id == peer.Device && d.contacts.atHome(peer)
	}
	return slices.ContainsFunc(what.From, is) || slices.ContainsFunc(d.rules.List(), func(r forward.Rule) bool {
		return what.Pipe != "" && r.CoversPipe(what.Pipe) && is(r.Device)
	})
}

// claim listens under a pattern and notes that for the status until the listener
// closes. decide is that of ListenFunc.
func (d *Daemon) claim(pattern string, decide func(ctx context.Context, peer identity.Peer, uri string) error) (peerlink.ChannelListener, error) {
	l, err := d.acc.ConnectionManager().ListenFunc(pattern, decide)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.claims[pattern]++
	return &claimed{l, sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.claims[pattern]--; d.claims[pattern] == 0 {
			delete(d.claims, pattern)
		}
	})}, nil
}

// claimed is a listener that stands in the status.
type claimed struct {
	peerlink.ChannelListener
	free func()
}

// Close implements net.Listener.
func (c *claimed) Close() error {
	defer c.free()
	return c.ChannelListener.Close()
}

// take hands an announced channel over.
func (d *Daemon) take(_ context.Context, c *control.Call) error {
	var token string
	if err := c.Decode(&token); err != nil {
		return err
	}
	of := d.offers.take(token)
	if of == nil {
		return fmt.Errorf("the channel: %w: it was not taken in %v, or its peer has gone", control.ErrNotFound, takeTimeout)
	}
	defer of.free()
	return d.hand(c, of.sock)
}
