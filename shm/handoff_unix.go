//go:build linux || darwin

package shm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"peerlink/identity"
	"peerlink/internal/proving"
	"peerlink/internal/ring"
)

func supported() error { return nil }

// sent is how many descriptors come with the callee's answer.
const sent = 2

// ask is the caller's side. It owns raw.
func (c Config) ask(ctx context.Context, raw *net.UnixConn, peer identity.Peer) (*Conn, error) {
	return c.bounded(ctx, raw, func() (*Conn, error) {
		if _, err := raw.Write(head{size: c.RegionSize}.encode()); err != nil {
			return nil, err
		}
		h, fds, err := receiveRegion(raw)
		if err != nil {
			return nil, err
		}
		conn, err := c.attach(raw, h, fds, peer)
		closeAll(fds)
		if err != nil {
			reason := reasonOf(err)
			_, _ = raw.Write(append([]byte{byte(len(reason))}, reason...))
			return nil, err
		}
		if _, err := raw.Write([]byte{0}); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return conn, nil
	})
}

// receiveRegion reads the answer. There is room for two descriptors and no
// more: what else comes is closed by the kernel, which says so.
func receiveRegion(raw *net.UnixConn) (h head, fds []*os.File, err error) {
	b, oob := make([]byte, headLen), make([]byte, unix.CmsgSpace(sent*4))
	n, oobn, flags, _, err := raw.ReadMsgUnix(b, oob)
	if err != nil {
		return h, nil, ended(err)
	}
	fds, err = parseRights(oob[:oobn])
	defer func() {
		if err != nil {
			closeAll(fds)
		}
	}()
	if err != nil {
		return h, fds, err
	}
	if n == 0 {
		return h, fds, ended(io.EOF)
	}
	if _, err = io.ReadFull(raw, b[n:]); err != nil {
		return h, fds, ended(err)
	}
	if h, err = decodeHead(b); err != nil {
		return h, fds, err
	}
	switch {
	case h.reason > 0:
		err = readReason(raw, h.reason)
	case flags&unix.MSG_CTRUNC != 0:
		err = fmt.Errorf("the peer sent more than %d descriptors: all are closed", sent)
	case len(fds) != sent:
		err = fmt.Errorf("the peer sent %d descriptors, want %d", len(fds), sent)
	}
	return h, fds, err
}

// parseRights returns the descriptors in control data; each has to be closed.
func parseRights(oob []byte) (fds []*os.File, err error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fds, err
		}
		for _, fd := range got {
			unix.CloseOnExec(fd) // on Linux it is already
			fds = append(fds, os.NewFile(uintptr(fd), "received"))
		}
	}
	return fds, nil
}

// attach checks and maps what was received; it closes none of it.
func (c Config) attach(raw *net.UnixConn, h head, fds []*os.File, peer identity.Peer) (*Conn, error) {
	if h.size > c.RegionSize {
		return nil, fmt.Errorf("the peer made a region of %d bytes, %d were asked for", h.size, c.RegionSize)
	}
	mayShrink, err := checkRegion(fds[0], h.size)
	if err != nil {
		return nil, err
	}
	second, err := asUnixConn(fds[1])
	if err != nil {
		return nil, err
	}
	seg, err := mapSegment(fds[0], h.size, mayShrink)
	if err != nil {
		_ = second.Close()
		return nil, err
	}
	return assemble(seg, ring.Second, second, raw, peer)
}

// offer is the callee's side. It owns raw.
func (c Config) offer(ctx context.Context, raw *net.UnixConn, peer identity.Peer) (*Conn, error) {
	return c.bounded(ctx, raw, func() (*Conn, error) {
		h, err := readRequest(raw)
		if err != nil {
			return nil, c.refuse(raw, err)
		}
		seg, second, err := c.hand(raw, min(h.size, c.RegionSize))
		if err != nil {
			return nil, c.refuse(raw, err)
		}
		if err := readConsent(raw); err != nil {
			seg.close()
			return nil, errors.Join(err, second.Close())
		}
		return assemble(seg, ring.First, raw, second, peer)
	})
}

func readRequest(raw *net.UnixConn) (head, error) {
	b := make([]byte, headLen)
	if _, err := io.ReadFull(raw, b); err != nil {
		return head{}, ended(err)
	}
	return decodeHead(b)
}

// refuse tells the caller why, as far as it still listens.
func (c Config) refuse(raw *net.UnixConn, err error) error {
	reason := reasonOf(err)
	_, _ = raw.Write(append(head{reason: len(reason)}.encode(), reason...))
	return err
}

// hand makes a region and a pair of sockets and sends the caller its part.
func (c Config) hand(raw *net.UnixConn, size int) (*segment, *net.UnixConn, error) {
	f, err := newRegion(size)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	seg, err := mapSegment(f, size, regionMayShrink)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		seg.close()
		return nil, nil, err
	}
	defer theirs.Close()
	rights := unix.UnixRights(int(f.Fd()), int(theirs.Fd()))
	if _, _, err := raw.WriteMsgUnix(head{size: size}.encode(), rights, nil); err != nil {
		seg.close()
		return nil, nil, errors.Join(err, ours.Close())
	}
	return seg, ours, nil
}

func readConsent(raw *net.UnixConn) error {
	var b [1]byte
	if _, err := io.ReadFull(raw, b[:]); err != nil {
		return ended(err)
	}
	if b[0] == 0 {
		return nil
	}
	return readReason(raw, min(int(b[0]), maxReason))
}

// socketPair makes the second bell: our end, and the file to send.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	f := os.NewFile(uintptr(fds[0]), "bell")
	theirs := os.NewFile(uintptr(fds[1]), "bell")
	ours, err := asUnixConn(f)
	_ = f.Close()
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// asUnixConn returns a copy of a descriptor, which must be a Unix stream socket.
func asUnixConn(f *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("the second descriptor is no connected socket: %w", err)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok || u.LocalAddr().Network() != "unix" {
		_ = conn.Close()
		return nil, errors.New("the second descriptor is no Unix stream socket")
	}
	return u, nil
}

// assemble makes the stream; on an error it releases all but raw.
func assemble(seg *segment, side ring.Side, in, out *net.UnixConn, peer identity.Peer) (*Conn, error) {
	bells := make([]*bell, 2)
	for i, s := range []*net.UnixConn{in, out} {
		var err error
		if bells[i], err = newBell(s); err != nil {
			seg.close()
			return nil, errors.Join(err, in.Close(), out.Close())
		}
	}
	conn, err := newConn(seg, side, bells[0], bells[1], peer)
	if err != nil {
		seg.close()
		return nil, errors.Join(err, in.Close(), out.Close())
	}
	return conn, nil
}

// bounded bounds a set-up in time; without success it closes the socket.
func (c Config) bounded(ctx context.Context, raw *net.UnixConn, setUp func() (*Conn, error)) (*Conn, error) {
	return proving.Within(ctx, raw, c.HandshakeTimeout, "finished the set-up", setUp)
}

func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the far end closed during the set-up: %w", io.ErrUnexpectedEOF)
	}
	return err
}

func closeAll(fds []*os.File) {
	for _, f := range fds {
		_ = f.Close()
	}
}
