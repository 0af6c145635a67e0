//go:build linux || darwin

package localipc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"peerlink/identity"
	"peerlink/internal/runfolder"
)

// doorway is a device's socket with its lock and its announcement.
type doorway struct {
	net.Listener
	place place
	lock  *lock
	sock  fs.FileInfo // what was bound
}

// openDoorway makes the socket of a device. The order matters: with the lock
// the name is ours, so what is there is a dead process's; the announcement comes
// last, when the socket answers.
func openDoorway(ctx context.Context, cfg Config) (*doorway, error) {
	p := newPlace(cfg.Dir, os.Geteuid(), cfg.Identity.DeviceID())
	if err := p.checkPath(); err != nil {
		return nil, err
	}
	if err := runfolder.Own(cfg.Dir); err != nil {
		return nil, err
	}
	if err := checkClosed(cfg.Dir, cfg.Users); err != nil {
		return nil, err
	}
	l, err := waitLock(ctx, p.path(lockSuffix))
	if errors.Is(err, errLocked) {
		return nil, p.inUse()
	}
	if err != nil {
		return nil, err
	}
	d := &doorway{place: p, lock: l}
	if err := d.open(ctx, cfg); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// inUse names the process that listens, as far as it says so.
func (p place) inUse() error {
	if b, err := p.readPeerFile(); err == nil {
		if d, err := readAnnouncement(b, time.Now()); err == nil {
			return fmt.Errorf("%w: process %d holds %s", ErrInUse, d.PID, p.path(lockSuffix))
		}
	}
	return fmt.Errorf("%w: it holds %s", ErrInUse, p.path(lockSuffix))
}

func (d *doorway) open(ctx context.Context, cfg Config) error {
	if err := d.place.clean(); err != nil {
		return err
	}
	d.place.sweep()
	path := d.place.path(sockSuffix)
	var lc net.ListenConfig
	sock, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return err
	}
	d.Listener = sock
	sock.(*net.UnixListener).SetUnlinkOnClose(false) // Close does, if it is still ours
	if d.sock, err = os.Lstat(path); err != nil {
		return err
	}
	// To connect is to write. The folder and the handshake say who may.
	sockMode, fileMode := fs.FileMode(0o600), fs.FileMode(0o600)
	if len(cfg.Users) > 0 {
		sockMode, fileMode = 0o666, 0o644
	}
	if err := os.Chmod(path, sockMode); err != nil {
		return err
	}
	return d.announce(cfg, fileMode)
}

// announce writes the announcement, whole or not at all.
func (d *doorway) announce(cfg Config, mode fs.FileMode) error {
	b, err := cfg.announce(os.Getpid(), time.Now())
	if err != nil {
		return err
	}
	tmp := d.place.path(newSuffix)
	if err := os.WriteFile(tmp, b, 0o600); err != nil { // clean has removed an older one
		return err
	}
	if err := os.Chmod(tmp, mode); err != nil {
		return err
	}
	return os.Rename(tmp, d.place.path(peerSuffix))
}

// path is where the socket is.
func (d *doorway) path() string { return d.place.path(sockSuffix) }

// Close stops listening and removes what open made.
func (d *doorway) Close() error {
	var err error
	if d.Listener != nil {
		err = d.Listener.Close()
	}
	_ = runfolder.Remove(d.place.path(peerSuffix), 0)
	_ = runfolder.Remove(d.place.path(newSuffix), 0)
	if now, serr := os.Lstat(d.path()); serr == nil && d.sock != nil && os.SameFile(now, d.sock) {
		_ = os.Remove(d.path())
	}
	d.lock.release()
	return err
}

// peerCreds asks the kernel which process made the other end of a socket, or
// listened for it.
func peerCreds(conn net.Conn) (c creds, err error) {
	c.uid, c.pid, err = runfolder.PeerOf(conn)
	return c, err
}

// find looks for a device's announcement and connects to the socket beside it.
func (c Config) find(ctx context.Context, id identity.DeviceID, service string) (net.Conn, string, error) {
	var failed []error
	for _, dir := range append([]string{c.Dir}, c.Folders...) {
		conn, path, err := c.findIn(ctx, dir, id, service)
		switch {
		case err == nil:
			return conn, path, nil
		case !errors.Is(err, fs.ErrNotExist):
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		return nil, "", errors.Join(failed...)
	}
	return nil, "", fmt.Errorf("%w (%s has no announcement of it)", ErrNotHere, c.Dir)
}

func (c Config) findIn(ctx context.Context, dir string, id identity.DeviceID, service string) (net.Conn, string, error) {
	owner, err := runfolder.Check(dir)
	if err != nil {
		return nil, "", err
	}
	if err := c.allowsOwner(dir, owner); err != nil {
		return nil, "", err
	}
	p := newPlace(dir, owner, id)
	if err := p.checkPath(); err != nil {
		return nil, "", err
	}
	d, err := p.device()
	if err != nil {
		return nil, "", err
	}
	if d.Peer.Device != id {
		return nil, "", fmt.Errorf("%s is the announcement of %s", p.path(peerSuffix), d.Peer.Device)
	}
	if service != streamService && !slices.Contains(d.Services, service) {
		return nil, "", fmt.Errorf("service %q is not offered by device %s", service, id.Short())
	}
	conn, err := c.connect(ctx, p)
	return conn, p.path(sockSuffix), err
}

// connect connects to a socket whose process must be the folder's user.
func (c Config) connect(ctx context.Context, p place) (net.Conn, error) {
	nd := net.Dialer{Timeout: max(c.HandshakeTimeout, 0)}
	conn, err := nd.DialContext(ctx, "unix", p.path(sockSuffix))
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it ended without a word (%w)", ErrNotHere, err)
	}
	if err != nil {
		return nil, err
	}
	who, err := peerCreds(conn)
	if err == nil && who.uid != p.owner {
		err = fmt.Errorf("%s is served by user %d, its folder belongs to user %d", p.path(sockSuffix), who.uid, p.owner)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

func (c Config) allowsOwner(dir string, owner int) error {
	if owner == os.Geteuid() || slices.Contains(c.Users, owner) {
		return nil
	}
	return fmt.Errorf("runtime folder %s belongs to user %d, who is not listed (Config.Users)", dir, owner)
}

// device reads and verifies the announcement.
func (p place) device() (Device, error) {
	b, err := p.readPeerFile()
	if err != nil {
		return Device{}, err
	}
	d, err := readAnnouncement(b, time.Now())
	if err != nil {
		return Device{}, fmt.Errorf("announcement %s: %w", p.path(peerSuffix), err)
	}
	return d, nil
}

// devices lists whose announcements are found.
func (c Config) devices() ([]Device, error) {
	var out []Device
	var failed []error
	for _, dir := range append([]string{c.Dir}, c.Folders...) {
		owner, err := runfolder.Check(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = c.allowsOwner(dir, owner)
		}
		var names []string
		if err == nil {
			names, err = devicesIn(dir)
		}
		if err != nil {
			failed = append(failed, err)
		}
		for _, name := range names {
			d, err := place{dir: dir, owner: owner, base: name}.device()
			if err == nil && d.Peer.Device.String()[:nameDigits] == name {
				out = append(out, d)
			}
		}
	}
	return out, errors.Join(failed...)
}
