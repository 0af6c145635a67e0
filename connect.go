package peerlink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/internal/trace"
	"peerlink/multiplex"
)

const (
	// defaultChannelTimeout is ConnectOptions.ChannelTimeout's default.
	defaultChannelTimeout = 10 * time.Second
	// maxTries bounds the links that one call may lose before its channel
	// request was even sent on them.
	maxTries = 8
)

// ConnectDevice opens a channel to a device under a URI (1 to 255 bytes of
// UTF-8 without control characters; not unique) and returns its end. If there
// is no link yet, it makes one. Further callers that want the same device share
// that negotiation, and each one's ctx bounds its own call only. A link that the
// device itself makes serves as well. With this device's own id the error matches
// ErrSelf.
//
// If no carrier gets there and ctx has a deadline, all are tried again, with
// growing pauses, until then. Without a deadline the failure is returned at once;
// so is, in any case, a refusal by the device, or the failure of carriers that would
// all fail again (see Dialer). If the link breaks before the answer, the request is sent once more on a
// new link.
//
// The error names the carriers that were tried and why each failed. It matches
// ErrDeclined (and ErrNoListener), ErrRefused, ErrBusy, identity.ErrBanned (by this
// device itself), ErrNotConnected, ErrCapacity, ctx's cause,
// os.ErrDeadlineExceeded (the peer did not decide in time) or net.ErrClosed.
func (m *ConnectionManager) ConnectDevice(ctx context.Context, peer identity.DeviceID, uri string, opts ConnectOptions) (*channel.Socket, error) {
	if err := m.running(); err != nil {
		return nil, err
	}
	if err := m.checkConnect(peer, uri, opts); err != nil {
		return nil, fmt.Errorf("peerlink: %w", err)
	}
	if opts.UniqueName {
		return m.uniques.connect(ctx, uniqueKey{peer, uri}, func(ctx context.Context) (*channel.Socket, error) {
			return m.connect(ctx, peer, uri, opts)
		})
	}
	return m.connect(ctx, peer, uri, opts)
}

// checkConnect finds arguments that cannot lead anywhere.
func (m *ConnectionManager) checkConnect(peer identity.DeviceID, uri string, opts ConnectOptions) error {
	switch {
	case opts.Mode < Reuse || opts.Mode > NewLink:
		return fmt.Errorf("ConnectOptions.Mode: there is no mode %d", opts.Mode)
	case opts.ChannelTimeout < 0:
		return fmt.Errorf("ConnectOptions.ChannelTimeout: %v is negative", opts.ChannelTimeout)
	}
	if err := m.checkPeer(peer); err != nil {
		return err
	}
	return multiplex.CheckName(uri)
}

// checkPeer returns why a device must not be called.
func (m *ConnectionManager) checkPeer(peer identity.DeviceID) error {
	switch {
	case peer == m.cfg.Identity.DeviceID():
		return ErrSelf
	case peer.IsZero():
		return errors.New("the zero device id names no device")
	case m.cfg.Trust != nil && m.cfg.Trust.Decision(peer) == identity.Banned:
		return fmt.Errorf("device %s is banned here: %w", peer.Short(), identity.ErrBanned)
	}
	return nil
}

// connect is ConnectDevice for a channel of the caller's own.
func (m *ConnectionManager) connect(ctx context.Context, peer identity.DeviceID, uri string, opts ConnectOptions) (*channel.Socket, error) {
	lost := 0
	var pauses *backoff.ExponentialBackOff // made when it is needed
	for try := 1; ; try++ {
		l, err := m.linkTo(ctx, peer, opts)
		if errors.Is(err, errCrossed) && try < maxTries {
			continue // there is a link after all
		}
		if err != nil {
			return nil, err
		}
		sock, sent, err := m.open(ctx, l, uri, opts)
		if err == nil {
			return sock, nil
		}
		if pauses == nil {
			pauses = pausesOfRounds()
		}
		if sent {
			lost++
		}
		no := asRefusal(err)
		if no != nil {
			err = &ConnectError{Peer: peer, Attempts: []Attempt{{Carrier: l.carrier, Took: time.Since(l.up), Err: fmt.Errorf("%s: %w", l.path, no)}}}
		} else {
			err = fmt.Errorf("peerlink: open %q on the link to device %s: %w", uri, peer.Short(), err)
		}
		// linkTo will not take the link again, and may make another.
		again := (l.mux.Ending() || errors.Is(err, errRetired)) && ctx.Err() == nil && opts.Mode != OnlyIfConnected && opts.Link.IsZero()
		switch busy := errors.Is(no, ErrBusy) && isPatient(ctx); {
		case !again || errors.Is(no, ErrRefused):
			return nil, err
		case lost <= 1 && try < maxTries:
		case !busy:
			return nil, err
		case pause.For(ctx, pauses.NextBackOff()) != nil:
			return nil, fmt.Errorf("%w: %w", err, context.Cause(ctx))
		default:
			lost, try = 1, 0
		}
		m.locked(func() { m.totals.Retried++ })
	}
}

// open asks for a channel on a link. sent tells whether the peer may have seen
// the request: on a link that was lost it may, on one that is given up
// (errRetired) it had no effect.
func (m *ConnectionManager) open(ctx context.Context, l *link, uri string, opts ConnectOptions) (sock *channel.Socket, sent bool, err error) {
	wait := cmp.Or(opts.ChannelTimeout, defaultChannelTimeout)
	late := fmt.Errorf("the device did not decide in %v: %w", wait, os.ErrDeadlineExceeded)
	ctx, cancel := context.WithTimeoutCause(ctx, wait, late)
	defer cancel()
	select {
	case l.asking <- struct{}{}:
	case <-l.mux.Done():
		return nil, false, l.mux.Err()
	case <-ctx.Done():
		return nil, false, fmt.Errorf("%d requests before it are unanswered: %w", maxAsked, context.Cause(ctx))
	}
	defer func() { <-l.asking }()
	if m.retired(l) {
		return nil, false, errRetired
	}
	sock, err = l.mux.Open(ctx, uri)
	switch {
	case err == nil && m.admitChannel(l):
		trace.Note(ctx, trace.ChannelOpen, "%s (channel %d)", uri, sock.ID())
		return sock, true, nil
	case err == nil:
		_ = sock.Reset(channel.CodeCancelled)
		return nil, false, errRetired
	case m.retired(l) && l.mux.Ending(), givenUpThere(err), closingThere(ctx, l, err):
		return nil, false, errRetired
	}
	return nil, true, err
}

// givenUpThere reports whether the peer ended the link because it had no use
// for it. Then the peer has taken no channel on it. A peer that made several
// links at once may do so to a request more than once.
func givenUpThere(err error) bool {
	bye, ok := errors.AsType[*multiplex.GoingAwayError](err)
	return ok && (bye.Code == channel.CodeNotNeeded || bye.Code == channel.CodeCrossed || bye.Code == channel.CodeIdle)
}

// closingThere reports whether a request was declined only because the peer
// had just begun to close the link. The peer's answer may overtake its going
// away, so closingThere waits; if the link does not end, the decline stands.
func closingThere(ctx context.Context, l *link, err error) bool {
	if no, ok := errors.AsType[*multiplex.DeclinedError](err); !ok || no.Code != channel.CodeClosing {
		return false
	}
	_ = pause.Until(ctx, closeTimeout, l.mux.Leaving())
	return l.mux.Ending()
}

// errRetired is why a link did not take a request: it is about to be closed
// here, because it is idle or another one takes its place.
var errRetired = errors.New("the link is being closed")

// retired reports whether a link is given up. One that is not is not idle while
// the caller has a place in link.asking.
func (m *ConnectionManager) retired(l *link) bool {
	m.lock()
	defer m.mu.Unlock()
	return l.retired
}

// linkTo returns a link to the device, as the options allow.
func (m *ConnectionManager) linkTo(ctx context.Context, peer identity.DeviceID, opts ConnectOptions) (*link, error) {
	dialers, err := m.dialers(opts.Carriers)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("peerlink: connect to device %s: %w", peer.Short(), context.Cause(ctx))
	}
	if !opts.Link.IsZero() {
		l := m.find(opts.Link)
		if l == nil || l.peer.Device != peer || l.mux.Ending() {
			return nil, fmt.Errorf("peerlink: link %s to device %s: %w", opts.Link, peer.Short(), ErrNotConnected)
		}
		return l, nil
	}
	l, n, ends, err := m.join(ctx, peer, dialers, opts)
	switch {
	case err == errClosed:
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("peerlink: device %s: %w", peer.Short(), err)
	case l != nil:
		return l, nil
	}
	return m.wait(ctx, n, ends)
}

// dialers resolves carriers' names.
func (m *ConnectionManager) dialers(names []string) ([]Dialer, error) {
	if names == nil {
		return m.cfg.Dialers, nil
	}
	var ds []Dialer
	for _, name := range names {
		of := slices.DeleteFunc(slices.Clone(m.cfg.Dialers), func(d Dialer) bool { return d.Name() != name })
		if len(of) == 0 {
			return nil, fmt.Errorf("peerlink: there is no carrier %q here (there are %v)", name, m.carrierNames())
		}
		ds = append(ds, of...)
	}
	return ds, nil
}

func (m *ConnectionManager) carrierNames() []string {
	var names []string
	for _, d := range m.cfg.Dialers {
		names = append(names, d.Name())
	}
	return names
}

// IsConnected reports whether there is a live link to the device.
func (m *ConnectionManager) IsConnected(peer identity.DeviceID) bool {
	m.lock()
	defer m.mu.Unlock()
	return m.links.best(peer, nil) != nil
}

// IsConnecting reports whether a link to the device is being made by this side.
func (m *ConnectionManager) IsConnecting(peer identity.DeviceID) bool {
	m.lock()
	defer m.mu.Unlock()
	return len(m.talks.byDevice[peer]) > 0
}

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
// proves that it ends there. Each call makes a link of its own; ConnectDevice
// uses it like any other, and ConnectOptions.Link picks it. A name may take 5 s
// to be resolved; its first 8 addresses are tried, a quarter of a second apart or
// as soon as all before have failed, and again until ctx's deadline, if it has
// one. The error tells each address with its cause; it matches what
// ConnectDevice's does.
func (m *ConnectionManager) ConnectAddr(ctx context.Context, addr string, peer identity.DeviceID) (LinkID, error) {
	fail := func(err error) (LinkID, error) {
		return LinkID{}, fmt.Errorf("peerlink: connect to device %s at %.300q: %w", peer.Short(), addr, err)
	}
	if err := m.running(); err != nil {
		return fail(err)
	}
	if err := m.checkPeer(peer); err != nil {
		return fail(err)
	}
	i := slices.IndexFunc(m.cfg.Dialers, func(d Dialer) bool { _, ok := d.(AddrDialer); return ok })
	if i < 0 {
		return fail(fmt.Errorf("no carrier here dials addresses (there are %v)", m.carrierNames()))
	}
	addrs, err := resolve(ctx, addr)
	if err != nil {
		return fail(err)
	}
	var dialers []Dialer
	for _, a := range addrs {
		dialers = append(dialers, addressed{m.cfg.Dialers[i].(AddrDialer), a})
	}
	_, n, ends, err := m.join(ctx, peer, dialers, ConnectOptions{Mode: NewLink})
	if err != nil {
		return fail(err)
	}
	l, err := m.wait(ctx, n, ends)
	if err != nil {
		return fail(err)
	}
	return l.id, nil
}

// resolve returns what addr stands for, as ip:port.
func resolve(ctx context.Context, addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("want HOST:PORT: %w", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, errors.New("want HOST:PORT, with a port from 1 to 65535")
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
