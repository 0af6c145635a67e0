package peerlink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/internal/trace"
)

// defaultChannelTimeout is ConnectOptions.ChannelTimeout's default.
const defaultChannelTimeout = 10 * time.Second

// ConnectDevice opens a channel to a device under a URI (1 to 255 bytes of
// UTF-8 without control characters; not unique) and returns its end. If there
// is no link yet, it makes one; callers who want the same device meanwhile
// share that negotiation, and each one's ctx bounds its own call only. If the
// link breaks before the answer, a new one is tried once.
//
// The error says which ways were tried and why each failed; it matches
// ErrDeclined, ErrRefused, ErrNotConnected, ErrCapacity, ctx's cause,
// os.ErrDeadlineExceeded (the peer did not decide in time) or net.ErrClosed.
func (m *ConnectionManager) ConnectDevice(ctx context.Context, peer identity.DeviceID, uri string, opts ConnectOptions) (*channel.Socket, error) {
	if peer == m.cfg.Identity.DeviceID() {
		return nil, errors.New("peerlink: that is this device's own id")
	}
	if peer.IsZero() {
		return nil, errors.New("peerlink: the zero device id names no device")
	}
	for try := 0; ; try++ {
		l, err := m.linkTo(ctx, peer, opts)
		if err != nil {
			return nil, err
		}
		sock, err := m.open(ctx, l, uri, opts)
		if err == nil {
			return sock, nil
		}
		lost := l.mux.Ending() && ctx.Err() == nil // and so linkTo will not take it again
		if !lost || try > 0 || opts.Mode == OnlyIfConnected {
			return nil, fmt.Errorf("peerlink: open %q on the link to device %s: %w", uri, peer.Short(), err)
		}
	}
}

// open asks for a channel on a link.
func (m *ConnectionManager) open(ctx context.Context, l *link, uri string, opts ConnectOptions) (*channel.Socket, error) {
	wait := opts.ChannelTimeout
	if wait == 0 {
		wait = defaultChannelTimeout
	}
	late := fmt.Errorf("the device did not decide in %v: %w", wait, os.ErrDeadlineExceeded)
	ctx, cancel := context.WithTimeoutCause(ctx, wait, late)
	defer cancel()
	sock, err := l.mux.Open(ctx, uri)
	if err == nil {
		trace.Note(ctx, trace.ChannelOpen, "%s (channel %d)", uri, sock.ID())
	}
	return sock, err
}

// linkTo returns a link to the device, as the options allow.
func (m *ConnectionManager) linkTo(ctx context.Context, peer identity.DeviceID, opts ConnectOptions) (*link, error) {
	dialers, err := m.dialers(opts.Carriers)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	if m.closing {
		m.mu.Unlock()
		return nil, errClosed
	}
	if opts.Mode != NewLink {
		if l := m.bestLinkLocked(peer, opts.Carriers); l != nil {
			m.mu.Unlock()
			return l, nil
		}
	}
	if opts.Mode == OnlyIfConnected {
		m.mu.Unlock()
		return nil, fmt.Errorf("peerlink: device %s: %w", peer.Short(), ErrNotConnected)
	}
	if m.links+len(m.negotiations)+m.private >= m.cfg.Capacity && m.negotiations[peer] == nil {
		n := m.links
		m.mu.Unlock()
		return nil, fmt.Errorf("peerlink: device %s: %w: %d exist, and others are being made", peer.Short(), ErrCapacity, n)
	}
	n := m.joinLocked(ctx, peer, dialers, opts)
	m.mu.Unlock()
	return m.wait(ctx, n)
}

// dialers resolves carriers' names.
func (m *ConnectionManager) dialers(names []string) ([]Dialer, error) {
	if names == nil {
		return m.cfg.Dialers, nil
	}
	var ds []Dialer
	for _, name := range names {
		found := false
		for _, d := range m.cfg.Dialers {
			if d.Name() == name {
				ds, found = append(ds, d), true
			}
		}
		if !found {
			return nil, fmt.Errorf("peerlink: there is no carrier %q here", name)
		}
	}
	return ds, nil
}

// IsConnected reports whether there is a live link to the device.
func (m *ConnectionManager) IsConnected(peer identity.DeviceID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bestLinkLocked(peer, nil) != nil
}

// IsConnecting reports whether a link to the device is being made by this side.
func (m *ConnectionManager) IsConnecting(peer identity.DeviceID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.negotiations[peer] != nil
}
