package peerlink

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"time"

	"peerlink/identity"
	"peerlink/internal/netwatch"
	"peerlink/internal/pause"
	"peerlink/multiplex"
)

// stormStep spreads the connects that make up for lost links: up to 10 ms for
// each of them, so that a thousand begin within ten seconds.
const stormStep = 10 * time.Millisecond

// ConnectivityChanged is for use when the network has changed (Config.Network
// calls it): it sends a beacon on every link at once, and ends the pauses of
// connects under way. A link with channels that has not answered within
// ProbeTimeout gets a successor for new channels; the link itself ends after
// Link.BeaconTimeout, or goes on if it answers after all. ConnectivityChanged
// does not wait.
func (m *ConnectionManager) ConnectivityChanged() {
	m.lock()
	defer m.mu.Unlock()
	for _, of := range m.talks.byDevice {
		for _, n := range of {
			n.kick.Ring()
		}
	}
	for _, l := range m.links.all() {
		m.life.Go(func(ctx context.Context) { m.probe(ctx, l) })
	}
}

// probe asks a link whether it lives. A change of the network while it is asked
// has it asked once more: the answer may have come before the change.
func (m *ConnectionManager) probe(ctx context.Context, l *link) {
	m.lock()
	l.reprobe = l.probing
	skip := l.probing || l.mux.Version() < 2 // version 1 has no beacons
	l.probing = l.probing || !skip
	m.mu.Unlock()
	for again := !skip; again; {
		wanted, err := m.beacon(ctx, l)
		m.locked(func() {
			again = l.reprobe && err == nil
			l.reprobe, l.probing, l.suspect = false, again, err != nil
		})
		if err != nil && wanted && ctx.Err() == nil && wasCut(l.mux.Err()) {
			m.renew(ctx, l.peer.Device)
		}
	}
}

// beacon waits until a link has answered a beacon or ended. A link that is silent
// and wanted, as it had channels when last looked at, gets a successor.
func (m *ConnectionManager) beacon(ctx context.Context, l *link) (wanted bool, err error) {
	wanted = l.mux.Stats().Channels > 0 // asked now: a link that has ended has none
	soon, cancel := context.WithTimeout(ctx, m.cfg.ProbeTimeout)
	defer cancel()
	_, err = l.mux.Ping(soon)
	if err != nil && soon.Err() != nil && ctx.Err() == nil && !l.mux.Ending() {
		m.locked(func() { l.suspect = true })
		if wanted = l.mux.Stats().Channels > 0; wanted {
			m.life.Go(func(ctx context.Context) { m.renew(ctx, l.peer.Device) })
		}
		_, err = l.mux.Ping(ctx) // ends with the link, at the latest
	}
	return wanted, err
}

// wasCut reports whether a link ended because of the path, and not by either
// side's will.
func wasCut(err error) bool {
	_, bye := errors.AsType[*multiplex.GoingAwayError](err)
	return err != nil && !bye && !errors.Is(err, net.ErrClosed) && !errors.Is(err, multiplex.ErrProtocol)
}

// renew makes another link to a device, because the present one does not answer.
func (m *ConnectionManager) renew(ctx context.Context, device identity.DeviceID) {
	m.lock()
	spread := stormStep * time.Duration(len(m.links.byID)+1)
	m.mu.Unlock()
	if pause.For(ctx, rand.N(min(spread, maxPause))) != nil {
		return
	}
	within, cancel := context.WithTimeout(ctx, m.cfg.ConnectTimeout)
	defer cancel()
	if _, err := m.linkTo(within, device, ConnectOptions{}); err != nil && ctx.Err() == nil {
		m.cfg.Logger.Info("no new link for one that does not answer", "peer", device, "err", err)
	}
}

// watchNetwork calls ConnectivityChanged when the machine's network changes.
func (m *ConnectionManager) watchNetwork(ctx context.Context) {
	for range netwatch.Changes(ctx) {
		m.cfg.Logger.Info("the network has changed")
		m.ConnectivityChanged()
	}
}

// reapIdle closes links that have had no channels for IdleTimeout. It looks
// four times as often, so they are closed up to a quarter late.
func (m *ConnectionManager) reapIdle(ctx context.Context) {
	tick := time.NewTicker(max(m.cfg.IdleTimeout/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			m.locked(func() { m.retire(m.links.idle(now, m.cfg.IdleTimeout), errIdle) })
		case <-ctx.Done():
			return
		}
	}
}

var errIdle = errors.New("no channels for a while")
