//go:build linux || darwin

package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"peerlink/internal/atomicfile"
	"peerlink/internal/runfolder"
)

// placeFile, in the account's folder, says where its daemon's socket is. The
// socket itself is in the user's runtime folder: the account's may have too
// long a path, or be on a file system without sockets.
const placeFile = "control"

// maxPlace bounds what is read of it.
const maxPlace = 4 << 10

// Bind makes the control socket of the account in a folder. The caller must
// hold the account (its lock): whatever stands in the socket's place then
// belongs to a daemon that has died, and is removed, if it is a socket of this
// user; anything else is left alone, with an error. Closing the listener
// removes the socket, unless another one stands there.
func Bind(folder string) (net.Listener, error) {
	l, err := bind(folder)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

func bind(folder string) (net.Listener, error) {
	dir := runfolder.Default()
	if err := runfolder.Own(dir); err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return nil, err
	}
	if real, err = filepath.Abs(real); err != nil {
		return nil, err
	}
	name := sha256.Sum256([]byte(real))
	path := filepath.Join(dir, "control-"+hex.EncodeToString(name[:8])+".sock")
	if err := runfolder.CheckSocket(path); err != nil {
		return nil, err
	}
	if err := runfolder.Remove(path, fs.ModeSocket); err != nil {
		return nil, err
	}
	inner, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	inner.SetUnlinkOnClose(false)
	l := &placed{UnixListener: inner, path: path}
	if l.made, err = os.Lstat(path); err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err == nil {
		err = announce(folder, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Adopt is Bind with a socket that somebody else has opened, as systemd does.
// It stays where it is when the listener closes.
func Adopt(folder string, l net.Listener) (net.Listener, error) {
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, fmt.Errorf("control socket: want a Unix stream socket, was given one of %s", l.Addr().Network())
	}
	u.SetUnlinkOnClose(false)
	if err := announce(folder, u.Addr().String()); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return u, nil
}

func announce(folder, path string) error {
	return atomicfile.Write(filepath.Join(folder, placeFile), []byte(path+"\n"))
}

// placed removes its socket when it closes.
type placed struct {
	*net.UnixListener
	path string
	made fs.FileInfo
}

// Close implements net.Listener.
func (l *placed) Close() error {
	// Inode numbers are used again, so the number alone would not do.
	if st, err := os.Lstat(l.path); err == nil && l.made != nil && os.SameFile(st, l.made) &&
		st.Mode().Type() == fs.ModeSocket && st.ModTime().Equal(l.made.ModTime()) {
		_ = os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// dialDaemon connects to the daemon of the account in a folder, and checks that
// it is this user's.
func dialDaemon(ctx context.Context, folder string) (net.Conn, error) {
	path, err := placeOf(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoDaemon
	}
	if err != nil {
		return nil, fmt.Errorf("find the daemon: %w", err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrNoDaemon
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the daemon: %w", err)
	}
	if uid, pid, err := peerOf(conn); err != nil || uid != os.Geteuid() {
		_ = conn.Close()
		return nil, fmt.Errorf("the process at %s (%d) is of user %d, not of this one: it is not spoken to (%w)", path, pid, uid, errors.Join(err, os.ErrPermission))
	}
	return conn, nil
}

// placeOf reads where the socket is. A file that others could have written is
// not believed.
func placeOf(folder string) (string, error) {
	path := filepath.Join(folder, placeFile)
	f, st, err := runfolder.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if runfolder.Writable(st) {
		return "", fmt.Errorf("%s is not a file that only this user can write: remove it", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPlace+1))
	if err != nil {
		return "", err
	}
	place := strings.TrimSuffix(string(b), "\n")
	if len(b) > maxPlace || !filepath.IsAbs(place) {
		return "", fmt.Errorf("%s does not say where the socket is: remove it, and restart the daemon", path)
	}
	return place, nil
}

func selfUser() int { return os.Geteuid() }

// peerOf returns which user and process the kernel says is at the other end. A
// conn that is no socket of the system cannot leave this process.
func peerOf(conn net.Conn) (uid, pid int, err error) {
	uid, pid, err = runfolder.PeerOf(conn)
	if errors.Is(err, runfolder.ErrNoSocket) {
		return os.Geteuid(), os.Getpid(), nil
	}
	return uid, pid, err
}
