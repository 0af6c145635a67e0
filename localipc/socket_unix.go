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
	p := newPlace(cfg.Dir, cfg.Identity.DeviceID())
	if err := p.checkPath(); err != nil {
		return nil, err
	}
	if err := runfolder.Own(cfg.Dir); err != nil {
		return nil, err
	}
	if err := checkClosed(cfg.Dir); err != nil {
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
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	return d.announce(cfg)
}

// announce writes the announcement, whole or not at all.
func (d *doorway) announce(cfg Config) error {
	b, err := cfg.announce(os.Getpid(), time.Now())
	if err != nil {
		return err
	}
	tmp := d.place.path(newSuffix)
	if err := os.WriteFile(tmp, b, 0o600); err != nil { // clean has removed an older one
		return err
	}
	return os.Rename(tmp, d.place.path(peerSuffix))
}

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

// find looks for a device's announcement and connects to the socket next to it.
func (c Config) find(ctx context.Context, id identity.DeviceID, service string) (net.Conn, string, error) {
	conn, path, err := c.look(ctx, id, service)
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNotHere) {
		err = fmt.Errorf("%w (%s has no announcement of it)", ErrNotHere, c.Dir)
	}
	return conn, path, err
}

func (c Config) look(ctx context.Context, id identity.DeviceID, service string) (net.Conn, string, error) {
	if err := runfolder.Check(c.Dir); err != nil {
		return nil, "", err
	}
	p := newPlace(c.Dir, id)
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
	path := p.path(sockSuffix)
	nd := net.Dialer{Timeout: max(c.HandshakeTimeout, 0)}
	conn, err := nd.DialContext(ctx, "unix", path)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: it ended without a word (%w)", ErrNotHere, err)
	}
	return conn, path, err
}

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

func (c Config) devices() ([]Device, error) {
	err := runfolder.Check(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, err := devicesIn(c.Dir)
	var out []Device
	for _, name := range names {
		d, err := place{dir: c.Dir, base: name}.device()
		if err == nil && d.Peer.Device.String()[:nameDigits] == name {
			out = append(out, d)
		}
	}
	return out, err
}
