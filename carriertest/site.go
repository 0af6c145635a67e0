package carriertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"peerlink/identity"
)

// Site is where the devices of one test find each other: a folder, addresses by
// device, and signalling. All of it works between processes, too. Its methods may
// be called concurrently.
type Site struct {
	root string

	mu      sync.Mutex
	sockets []net.PacketConn // of signallers
}

// newSite makes a site of its own.
func newSite() (*Site, error) {
	root, err := os.MkdirTemp("", "ct") // short, as a socket's path must be
	if err != nil {
		return nil, err
	}
	return &Site{root: root}, errors.Join(os.Mkdir(filepath.Join(root, "d"), 0o700), os.Mkdir(filepath.Join(root, "a"), 0o700))
}

// close ends the signallers of this process, and removes the site.
func (s *Site) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.sockets {
		_ = c.Close()
	}
	_ = os.RemoveAll(s.root)
}

// Dir returns a folder that belongs to the carrier, for sockets perhaps. Only this
// user may enter it, and its path is short.
func (s *Site) Dir() string { return filepath.Join(s.root, "d") }

// Announce tells the site's devices an address of a device, in the carrier's own
// words. A further call takes the place of the one before.
func (s *Site) Announce(id identity.DeviceID, addr string) error {
	return s.put(id.String(), addr)
}

// Address returns what Announce was told of a device; "" if that was nothing.
func (s *Site) Address(id identity.DeviceID) string { return s.get(id.String()) }

func (s *Site) put(name, text string) error {
	f, err := os.CreateTemp(filepath.Join(s.root, "a"), "new")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close(), os.Rename(f.Name(), filepath.Join(s.root, "a", name)))
}

func (s *Site) get(name string) string {
	b, _ := os.ReadFile(filepath.Join(s.root, "a", name)) // without the file nothing was told
	return string(b)
}

// disguise has what goes to one device reach another.
func (s *Site) disguise(as, device identity.DeviceID) error {
	err := s.put(as.String()+".signals", s.get(device.String()+".signals"))
	if addr := s.Address(device); addr != "" {
		err = errors.Join(err, s.Announce(as, addr))
	}
	return err
}

// A Signaller brings a device's messages to the others of its Site, as package
// dht does between machines. It may lose some, and takes each sender's word for
// who it is. It is what ice.Config and webrtc.Config ask for, and ends with the
// test.
type Signaller struct {
	site *Site
	self identity.Peer
	sock net.PacketConn
}

// letter is what goes over a Signaller's socket.
type letter struct {
	From identity.Peer
	Msg  []byte
}

// maxLetter bounds a letter, in bytes: the longest UDP datagram.
const maxLetter = 64 << 10

// Signaller makes the signaller of a device. Messages to the device go to the
// newest one.
func (s *Site) Signaller(id *identity.Identity) (*Signaller, error) {
	sock, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.sockets = append(s.sockets, sock)
	s.mu.Unlock()
	return &Signaller{s, id.Peer(), sock}, s.put(id.DeviceID().String()+".signals", sock.LocalAddr().String())
}

// Send sends a message of at most 32 KiB. It fails if the device has no Signaller,
// and does not block.
func (s *Signaller) Send(_ context.Context, to identity.DeviceID, msg []byte) error {
	addr, err := net.ResolveUDPAddr("udp", s.site.get(to.String()+".signals"))
	if err != nil {
		return fmt.Errorf("carriertest: no signaller of device %s", to.Short())
	}
	b, err := json.Marshal(letter{s.self, msg})
	if err != nil {
		return err
	}
	_, err = s.sock.WriteTo(b, addr)
	return err
}

// Receive waits for the next message and returns its sender. It ends with ctx, or
// with an error that matches net.ErrClosed when the test is over.
func (s *Signaller) Receive(ctx context.Context) (identity.Peer, []byte, error) {
	defer s.sock.SetReadDeadline(time.Time{})
	defer context.AfterFunc(ctx, func() { _ = s.sock.SetReadDeadline(time.Unix(1, 0)) })()
	for b := make([]byte, maxLetter); ; {
		n, _, err := s.sock.ReadFrom(b)
		if ctx.Err() != nil {
			return identity.Peer{}, nil, context.Cause(ctx)
		}
		if err != nil {
			return identity.Peer{}, nil, err
		}
		var l letter
		if json.Unmarshal(b[:n], &l) == nil {
			return l.From, l.Msg, nil
		}
	}
}
