package peerlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"peerlink/identity"
)

const (
	// resolveTimeout bounds the look-up of a host's name: two tries of the
	// usual resolver configuration would be 10 s, and most answers take 0.1 s.
	resolveTimeout = 5 * time.Second
	// maxAddresses is how many addresses of one name are tried.
	maxAddresses = 8
	// addressStep is how long one address is alone before the next one starts
	// (RFC 8305, section 8: the recommended connection attempt delay).
	addressStep = 250 * time.Millisecond
)

// ConnectAddr makes a link to the device that is expected at an address
// ("host:port"), over the first of Config.Dialers that is an AddrDialer, and
// proves that it ends there. Each call makes a link of its own, which
// ConnectDevice uses like any other; ConnectOptions.Link picks it. A name may
// take 5 s to be resolved; its first 8 addresses are tried, a quarter of a
// second apart or as soon as all before have failed, and again until ctx's
// deadline, if it has one. The error tells each address with its cause; it
// matches what ConnectDevice's does.
func (m *ConnectionManager) ConnectAddr(ctx context.Context, addr string, peer identity.DeviceID) (LinkID, error) {
	fail := func(err error) (LinkID, error) {
		return LinkID{}, fmt.Errorf("peerlink: connect to device %s at %.300q: %w", peer.Short(), addr, err)
	}
	switch {
	case peer == m.cfg.Identity.DeviceID():
		return fail(errors.New("that is this device's own id; a link to oneself is not made"))
	case peer.IsZero():
		return fail(errors.New("the zero device id names no device; say which device is expected there"))
	}
	var d AddrDialer
	for _, c := range m.cfg.Dialers {
		if a, ok := c.(AddrDialer); ok {
			d = a
			break
		}
	}
	if d == nil {
		return fail(fmt.Errorf("no carrier here dials addresses (there are %v)", m.carrierNames()))
	}
	addrs, err := resolve(ctx, addr)
	if err != nil {
		return fail(err)
	}
	var dialers []Dialer
	for _, a := range addrs {
		dialers = append(dialers, addressed{d, a})
	}
	l, err := m.linkAt(ctx, peer, dialers)
	if err != nil {
		return fail(err)
	}
	return l.id, nil
}

// linkAt makes a link of the caller's own over certain dialers.
func (m *ConnectionManager) linkAt(ctx context.Context, peer identity.DeviceID, dialers []Dialer) (*link, error) {
	m.mu.Lock()
	if err := m.roomLocked(); err != nil {
		m.mu.Unlock()
		return nil, err
	}
	n := m.joinLocked(ctx, peer, dialers, ConnectOptions{Mode: NewLink})
	ends := n.failed
	m.mu.Unlock()
	return m.wait(ctx, n, ends)
}

// resolve returns what addr stands for, as ip:port.
func resolve(ctx context.Context, addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("want HOST:PORT: %w", err)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []string{net.JoinHostPort(ip.String(), port)}, nil
	}
	if host == "" {
		return nil, errors.New("want HOST:PORT; the host is missing")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, resolveTimeout, fmt.Errorf("no answer in %v: %w", resolveTimeout, context.DeadlineExceeded))
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
		return nil, fmt.Errorf("look up the name: %w", err)
	}
	var addrs []string
	for _, ip := range ips[:min(len(ips), maxAddresses)] {
		addrs = append(addrs, net.JoinHostPort(ip.Unmap().String(), port))
	}
	return addrs, nil
}

// addressed is a dialer at one address.
type addressed struct {
	AddrDialer
	addr string
}

// Name returns the carrier and the address, for the list of attempts.
func (a addressed) Name() string { return a.AddrDialer.Name() + " " + a.addr }

// Dial implements Dialer.
func (a addressed) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	return a.DialAddr(ctx, a.addr, peer)
}

// carrierOf returns the name of a dialer's carrier.
func carrierOf(d Dialer) string {
	if a, ok := d.(addressed); ok {
		return a.AddrDialer.Name()
	}
	return d.Name()
}
