package shm

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"peerlink/identity"
	"peerlink/internal/ring"
)

// Service is what shm is called among the services of a local socket.
const Service = "shm"

const (
	defaultRegion  = 4 << 20 // larger gains nothing, 1 MiB costs a third of the speed (BenchmarkRegion)
	defaultTimeout = 5 * time.Second
)

// ErrCorrupt is matched by every error of a stream whose peer broke the rules
// of the shared memory.
var ErrCorrupt = ring.ErrCorrupt

// LocalDialer makes a connected Unix socket to a device of this machine, proven
// at both ends, for a service. *localipc.Dialer is one.
type LocalDialer interface {
	DialUnix(ctx context.Context, service string, peer identity.DeviceID) (*net.UnixConn, identity.Peer, error)
}

// LocalListener yields such sockets on the called side. *localipc.Listener is
// one, if Config.Services has "shm". A permanent error matches net.ErrClosed.
type LocalListener interface {
	AcceptUnix(ctx context.Context, service string) (*net.UnixConn, identity.Peer, error)
}

// Config varies a carrier. It may be copied and used concurrently. The zero
// value of each field is its default.
type Config struct {
	// RegionSize is how much memory, in bytes, both sides share for a stream; a
	// little less than half of it for each direction. It is all in use from the
	// beginning. The smaller of both sides' wishes counts. 0: 4 MiB; otherwise
	// 64 KiB to 1 GiB.
	RegionSize int
	// HandshakeTimeout bounds the handing over of the memory: 5 s. Negative: only
	// the context does (a Listener then takes 5 s all the same).
	HandshakeTimeout time.Duration
	// Logger hears of set-ups that a Listener saw fail, at level Debug and at most
	// 10 times a second. nil is silent.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	c.RegionSize = cmp.Or(c.RegionSize, defaultRegion)
	if c.RegionSize < ring.MinSize || c.RegionSize > ring.MaxSize {
		return c, fmt.Errorf("shm: Config.RegionSize is %d bytes: want %d to %d, or 0 for the default", c.RegionSize, ring.MinSize, ring.MaxSize)
	}
	c.RegionSize = c.RegionSize / pageMultiple * pageMultiple
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, defaultTimeout)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c, nil
}

// pageMultiple is a multiple of every system's page size.
const pageMultiple = 64 << 10
