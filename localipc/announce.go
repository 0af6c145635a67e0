package localipc

import (
	"fmt"
	"time"

	"peerlink/identity"
	"peerlink/internal/packed"
)

// An announcement stands next to a device's socket, so that callers know before
// they connect which device it is and what it offers. It is msgpack
// [statement bin, signature bin], signed by the device for the purpose "local";
// the statement is the array
//
//	[version, chain, services [str…], process id, ms since 1970]
//
// A copy of it proves nothing: the handshake does.
const (
	announcePurpose = "local"
	maxAnnouncement = 8 << 10
	maxMillis       = 1 << 48
)

// Device is a device that listens, or has listened, on this machine.
type Device struct {
	// Peer is the device, by its signature.
	Peer identity.Peer
	// Services are what it offers besides plain streams.
	Services []string
	// PID is the process that it says it is.
	PID int
	// Since is when it began to listen, by its clock.
	Since time.Time
}

func (c Config) announce(pid int, now time.Time) ([]byte, error) {
	services := c.Services
	if services == nil {
		services = []string{}
	}
	st, err := packed.Pack(wireVersion, c.Identity.Peer().Chain(), services, uint64(pid), uint64(now.UnixMilli()))
	if err != nil {
		return nil, err
	}
	sig, err := c.Identity.Sign(announcePurpose, st)
	if err != nil {
		return nil, fmt.Errorf("sign the announcement: %w", err)
	}
	b, err := packed.Pack(st, sig)
	if err == nil && len(b) > maxAnnouncement {
		err = fmt.Errorf("the announcement has %d bytes, at most %d are taken", len(b), maxAnnouncement)
	}
	return b, err
}

func readAnnouncement(b []byte, now time.Time) (Device, error) {
	if len(b) > maxAnnouncement {
		return Device{}, fmt.Errorf("%d bytes, at most %d are taken", len(b), maxAnnouncement)
	}
	statement, sig, err := packed.Signed(b, maxAnnouncement, maxSig)
	if err != nil {
		return Device{}, err
	}
	d, chain, err := readStatement(statement)
	if err != nil {
		return Device{}, err
	}
	if d.Peer, err = identity.VerifyChain(chain, now); err != nil {
		return Device{}, err
	}
	return d, d.Peer.Verify(announcePurpose, statement, sig)
}

func readStatement(b []byte) (d Device, chain [][]byte, err error) {
	f := packed.NewFields(b, 5)
	if v := f.Uint(1 << 16); v != wireVersion {
		f.Fail(versionError(v))
	}
	chain = f.Blobs(identity.MaxChainLen, identity.MaxCertLen)
	d.Services = f.Strings(maxServices, maxServiceLen)
	for _, s := range d.Services {
		f.Fail(checkService(s))
	}
	d.PID = int(f.Uint(maxPID))
	d.Since = time.UnixMilli(int64(f.Uint(maxMillis)))
	return d, chain, f.End()
}
