package account

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	"peerlink"
	"peerlink/identity"
	"peerlink/localipc"
	"peerlink/shm"
)

// localOff is the LocalDir of an account without local carriers.
const localOff = "off"

// Here reports whether devices of this machine can reach this one directly.
func (a *Account) Here() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.here
}

// startLocal opens the carriers to devices of this machine and returns them,
// the cheapest first. Without the default folder the account still reaches
// everybody: what keeps that from working is logged, and an error only if ctx has
// ended. A folder that was asked for has to work.
func (a *Account) startLocal(ctx context.Context) (dialers []peerlink.Dialer, listeners []peerlink.Listener, err error) {
	if a.opts.LocalDir == localOff {
		return nil, nil, nil
	}
	cfg := localipc.Config{Identity: a.f.id, Trust: a.f.trust, Logger: a.opts.Logger}
	if a.opts.LocalDir != "" {
		if cfg.Dir, err = filepath.Abs(a.opts.LocalDir); err != nil {
			return nil, nil, fmt.Errorf("local_dir: %w", err)
		}
	}
	if runtime.GOOS != "windows" { // a named pipe cannot be handed over, and Listen refuses to promise it
		cfg.Services = []string{shm.Service}
	}
	unix := &localipc.Dialer{Config: cfg}
	a.unix = unix
	shared := &shm.Dialer{Local: unix, Config: shm.Config{RegionSize: a.opts.RegionSize, Logger: a.opts.Logger}}
	local, err := localipc.Listen(ctx, cfg)
	if err != nil {
		return a.notHere(ctx, err, shared, unix)
	}
	a.here = true
	a.closers = append(a.closers, local.Close)
	mem, err := shm.Listen(shared.Config, local)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return []peerlink.Dialer{unix}, []peerlink.Listener{local}, nil
	case err != nil:
		return nil, nil, err
	}
	a.closers = append(a.closers, mem.Close) // runs before local.Close: local feeds it
	return []peerlink.Dialer{shared, unix}, []peerlink.Listener{mem, local}, nil
}

// notHere says what is left if this device cannot be found on this machine: it
// can still call others if only its name is taken.
func (a *Account) notHere(ctx context.Context, why error, dialers ...peerlink.Dialer) ([]peerlink.Dialer, []peerlink.Listener, error) {
	switch {
	case ctx.Err() != nil:
		return nil, nil, why
	case errors.Is(why, localipc.ErrInUse): // by this device in another process
		a.opts.Logger.Warn("account: devices of this machine cannot reach this one directly: " + why.Error())
		return dialers, nil, nil
	case a.opts.LocalDir != "":
		return nil, nil, fmt.Errorf(`local_dir: devices of this machine cannot be reached there: %w; name a folder that this user alone can change, "off" to do without, or none for the default one`, why)
	}
	a.opts.Logger.Warn("account: devices of this machine are not reached directly: " + why.Error())
	return nil, nil, nil
}

// DevicesHere returns the devices that say that they run on this machine, this one
// among them perhaps; none where such devices are not reached directly. It reads
// files of theirs, and proves nothing.
func (a *Account) DevicesHere() map[identity.DeviceID]bool {
	a.mu.Lock()
	unix := a.unix
	a.mu.Unlock()
	if unix == nil {
		return nil
	}
	all, err := unix.Devices()
	if err != nil {
		a.opts.Logger.Debug("account: devices of this machine", "err", err)
	}
	out := map[identity.DeviceID]bool{}
	for _, d := range all {
		out[d.Peer.Device] = true
	}
	return out
}
