//go:build !linux && !darwin

package shm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"

	"peerlink/identity"
)

var errSystem = fmt.Errorf("shared memory on %s: %w", runtime.GOOS, errors.ErrUnsupported)

func supported() error { return errSystem }

func (c Config) ask(context.Context, *net.UnixConn, identity.Peer) (*Conn, error) {
	return nil, errSystem
}

func (c Config) offer(context.Context, *net.UnixConn, identity.Peer) (*Conn, error) {
	return nil, errSystem
}

type segment struct {
	mem       []byte
	name      string
	mayShrink bool
}

func (s *segment) close() {}

type bell struct{}

func (b *bell) ring()                         {}
func (b *bell) wait(func(uintptr) bool) error { return errSystem }
func (b *bell) drain(uintptr) heard           { return gone }
func (b *bell) setDeadline(time.Time) error   { return errSystem }
func (b *bell) close()                        {}
