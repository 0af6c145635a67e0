// Package netwatch tells when the machine's interfaces, addresses or routes change.
//
//	for range netwatch.Changes(ctx) {
//		// look at the network again
//	}
//
// On Linux the kernel says so at once (rtnetlink); elsewhere, and where that is
// not allowed, the addresses (without the routes) are looked at every five seconds. What has changed
// is not told: the caller looks for itself (Interfaces).
package netwatch

import (
	"context"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/wlynxg/anet"

	"peerlink/internal/pause"
)

const (
	// settle is how long a burst of changes may last until it is told as one:
	// an interface that comes up makes several within some 100 ms.
	settle = 250 * time.Millisecond
	// every is how often the addresses are looked at where the system does not tell.
	every = 5 * time.Second
)

// Changes yields once after each change, or burst of changes, until ctx ends.
// Changes during the loop's body count as one and follow. It holds a goroutine
// and, on Linux, a socket while it is ranged over.
func Changes(ctx context.Context) iter.Seq[struct{}] {
	return func(yield func(struct{}) bool) {
		ctx, cancel := context.WithCancel(ctx)
		news := make(chan struct{}, 1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if subscribe(ctx, news) != nil {
				poll(ctx, every, addresses, news)
			}
		}()
		defer func() {
			cancel()
			<-done
		}()
		for {
			select {
			case <-news:
			case <-ctx.Done():
				return
			}
			if pause.For(ctx, settle) != nil {
				return
			}
			select {
			case <-news: // of the same burst
			default:
			}
			if !yield(struct{}{}) {
				return
			}
		}
	}
}

// poll looks every so often and tells when what it sees has changed.
func poll(ctx context.Context, every time.Duration, look func() []string, news chan<- struct{}) {
	last := look()
	for pause.For(ctx, every) == nil {
		if now := look(); !slices.Equal(now, last) {
			last = now
			pause.Tell(news, struct{}{})
		}
	}
}

// Interface is one that is up, with the machine's addresses there and the prefixes
// of their networks.
type Interface struct {
	net.Interface
	Prefixes []netip.Prefix
}

// Interfaces lists the interfaces that are up. It goes through anet, as Android
// forbids what the standard library does. It does not block.
func Interfaces() ([]Interface, error) {
	all, err := anet.Interfaces()
	if err != nil {
		return nil, err
	}
	var up []Interface
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := anet.InterfaceAddrsByInterface(&i)
		if err != nil {
			return nil, err
		}
		here := Interface{Interface: i}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				here.Prefixes = append(here.Prefixes, p)
			}
		}
		up = append(up, here)
	}
	return up, nil
}

// addresses lists the interfaces with their addresses. What cannot be read counts
// as gone.
func addresses() []string {
	up, _ := Interfaces()
	var seen []string
	for _, i := range up {
		for _, p := range i.Prefixes {
			seen = append(seen, fmt.Sprintf("%d %s %v", i.Index, i.Name, p))
		}
	}
	slices.Sort(seen)
	return seen
}
