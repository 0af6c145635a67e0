package tlssock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"peerlink/identity"
	"peerlink/internal/trace"
)

const (
	// stagger is how long one address may try alone before the next begins
	// (RFC 8305, section 8: the recommended connection attempt delay).
	stagger = 250 * time.Millisecond
	// connectTimeout bounds one address's TCP connect: a lost SYN is repeated
	// after 1, 3 and 7 s.
	connectTimeout = 10 * time.Second
)

// ErrNoAddress is matched by Dial when no address of the device is known.
var ErrNoAddress = errors.New("no TCP address of the device is known")

// Dialer reaches devices over direct TCP at addresses that it was told. Set
// Config before the first use; the zero value otherwise is ready, with an
// empty address book. Its methods may be called concurrently. It keeps no
// goroutine and needs no closing.
type Dialer struct {
	Config Config

	book book
}

// Name returns "tcp".
func (d *Dialer) Name() string { return "tcp" }

// Learn adds addresses ("host:port") at which peer may listen, to be tried
// first and in this order; the 8 newest of a device are kept, and the 4 096
// devices that were used last. It fails, and adds none, when one is malformed.
// Addresses are not a secret to a program that answers at them, and dialling one
// sends it a ClientHello, so check what strangers supplied.
func (d *Dialer) Learn(peer identity.DeviceID, addrs ...string) error {
	for _, a := range addrs {
		if err := checkAddr(a); err != nil {
			return fmt.Errorf("tlssock: %w", err)
		}
	}
	d.book.add(peer, addrs)
	return nil
}

// Dial connects to peer at the addresses that Learn was told. They start a
// quarter of a second apart, or at once when the one before has failed; the
// first that proves to be peer wins. The error lists each address with its
// cause; without any it matches ErrNoAddress. Dial blocks until then or until
// ctx ends. See Client for what the peer may still do.
func (d *Dialer) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	addrs := d.book.get(peer)
	if len(addrs) == 0 {
		return nil, identity.Peer{}, fmt.Errorf("tcp to %s: %w", peer.Short(), ErrNoAddress)
	}
	return d.connect(ctx, addrs, peer)
}

// DialAddr connects to peer at one address ("host:port") and checks that it is
// peer that answers there. The address is not remembered.
func (d *Dialer) DialAddr(ctx context.Context, addr string, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	if err := checkAddr(addr); err != nil {
		return nil, identity.Peer{}, fmt.Errorf("tlssock: %w", err)
	}
	return d.connect(ctx, []string{addr}, peer)
}

func (d *Dialer) connect(ctx context.Context, addrs []string, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	start := time.Now()
	conn, err := race(ctx, addrs, func(ctx context.Context, addr string) (*Conn, error) {
		nd := net.Dialer{Timeout: connectTimeout}
		raw, err := nd.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return d.Config.Client(ctx, raw, peer)
	})
	if err != nil {
		return nil, identity.Peer{}, fmt.Errorf("tcp to %s: %w", peer.Short(), err)
	}
	trace.Note(ctx, trace.Secured, "%s in %s", conn.Path(), time.Since(start).Round(time.Microsecond))
	return conn, conn.Peer(), nil
}

type attempt struct {
	addr string
	conn *Conn
	err  error
}

// race tries the addresses in order, each given a head start over the next,
// and returns the first connection. When it returns, no attempt is running.
func race(ctx context.Context, addrs []string, try func(context.Context, string) (*Conn, error)) (*Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	donec := make(chan attempt)
	head := time.NewTimer(0)
	defer head.Stop()

	var winner *Conn
	var failed attempts
	for next, running := 0, 0; running > 0 || (winner == nil && next < len(addrs)); {
		select {
		case <-head.C:
			if winner != nil || next == len(addrs) {
				continue
			}
			addr := addrs[next]
			next, running = next+1, running+1
			go func() {
				conn, err := try(ctx, addr)
				donec <- attempt{addr, conn, err}
			}()
			head.Reset(stagger)
		case a := <-donec:
			running--
			switch {
			case a.err != nil:
				failed = append(failed, a)
				head.Reset(0)
			case winner != nil:
				_ = a.conn.Close()
			default:
				winner = a.conn
				cancel()
			}
		}
	}
	if winner == nil {
		return nil, failed
	}
	return winner, nil
}

// attempts is the error of a race without a winner.
type attempts []attempt

// Error lists each address with its cause.
func (as attempts) Error() string {
	var b strings.Builder
	for i, a := range as {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %v", a.addr, a.err)
	}
	return b.String()
}

// Permanent reports whether a further call would fail at every address alike.
func (as attempts) Permanent() bool {
	return !slices.ContainsFunc(as, func(a attempt) bool {
		lasting, ok := errors.AsType[interface {
			error
			Permanent() bool
		}](a.err)
		return !ok || !lasting.Permanent()
	})
}

// Unwrap lets errors.Is and errors.As look at each address's cause.
func (as attempts) Unwrap() []error {
	errs := make([]error, len(as))
	for i, a := range as {
		errs[i] = a.err
	}
	return errs
}
