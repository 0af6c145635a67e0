package localipc

import (
	"errors"
	"fmt"
	"time"

	"peerlink/identity"
	"peerlink/internal/packed"
)

// An announcement stands beside a device's socket, so that callers know before
// they connect whose it is and what it offers. It is msgpack
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
	// Peer is who it is, by its signature.
	Peer identity.Peer
	// Services are what it offers beside plain streams.
	Services []string
	// PID is the process that it says it is.
	PID int
	// Since is when it began to listen, by its clock.
	Since time.Time
}

// announce makes the device's announcement.
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

// readAnnouncement verifies what an announcement says.
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
	const fields = 5
	r := packed.NewReader(b)
	n, err := r.Array(fields + packed.MaxMore)
	if err != nil {
		return d, nil, err
	}
	if n == 0 {
		return d, nil, errors.New("empty statement")
	}
	v, err := r.Uint(1 << 16)
	if err != nil {
		return d, nil, err
	}
	if v != wireVersion {
		return d, nil, versionError(v)
	}
	if n < fields {
		return d, nil, fmt.Errorf("statement of %d elements, want %d", n, fields)
	}
	if chain, err = r.Blobs(identity.MaxChainLen, identity.MaxCertLen); err != nil {
		return d, nil, err
	}
	if d.Services, err = readServices(r); err != nil {
		return d, nil, err
	}
	pid, err := r.Uint(maxPID)
	if err != nil {
		return d, nil, err
	}
	ms, err := r.Uint(maxMillis)
	if err != nil {
		return d, nil, err
	}
	d.PID, d.Since = int(pid), time.UnixMilli(int64(ms))
	return d, chain, r.End(n - fields)
}

func readServices(r *packed.Reader) ([]string, error) {
	n, err := r.Array(maxServices)
	if err != nil {
		return nil, err
	}
	services := make([]string, n)
	for i := range services {
		if services[i], err = r.String(maxServiceLen); err != nil {
			return nil, err
		}
		if err := checkService(services[i]); err != nil {
			return nil, err
		}
	}
	return services, nil
}
