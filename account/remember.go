package account

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"peerlink"
	"peerlink/identity"
	"peerlink/internal/reach"
	"peerlink/tlssock"
)

// Files of what an account remembers; losing them costs nothing but time.
const (
	directFile = "direct.json" // HOST:PORT under which devices took direct TCP connections
	reachFile  = "reach.json"  // the DHT's
	nodeDir    = "node"        // of a device that serves the DHT: its libp2p key, and others' records
)

// remembering is a direct TCP dialer that keeps the addresses that worked, so
// that a known device is reached at once, and though the DHT is down.
type remembering struct {
	*tlssock.Dialer
	book *reach.Book
	say  func(error)
	wg   sync.WaitGroup // writers of the file
}

// remembering has the dialer of direct TCP remember, if there is a folder, and tells
// it what the file holds.
func (a *Account) remembering() peerlink.Dialer {
	if a.f.dir == "" {
		return a.dialer
	}
	say := func(err error) { a.opts.Logger.Warn("account: " + err.Error()) }
	book, err := reach.Open(a.f.disk.path(directFile))
	if err != nil {
		say(err)
	}
	r := &remembering{Dialer: a.dialer, book: book, say: say}
	now := time.Now()
	for _, name := range book.Names() {
		peer, err := identity.ParseDeviceID(name)
		if err != nil {
			continue
		}
		for _, v := range book.Known(name, now) {
			if err := a.dialer.Learn(peer, v.Addrs...); err != nil {
				book.Failed(name, v)
			}
		}
	}
	a.closers = append(a.closers, r.close)
	return r
}

// Dial is that of tlssock.Dialer; where it succeeded is remembered.
func (r *remembering) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	conn, who, err := r.Dialer.Dial(ctx, peer)
	if err != nil {
		return nil, who, err
	}
	r.book.Worked(peer.String(), reach.Via{Addrs: []string{conn.RemoteAddr().String()}}, time.Now())
	r.wg.Go(func() { // the caller has waited long enough
		if err := r.book.Save(); err != nil {
			r.say(err)
		}
	})
	return conn, who, nil
}

// close waits for what is being written. No Dial may run or come.
func (r *remembering) close() error {
	r.wg.Wait()
	if err := r.book.Save(); err != nil {
		return fmt.Errorf("account: %w", err)
	}
	return nil
}
