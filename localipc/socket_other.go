//go:build !linux && !darwin && !windows

package localipc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"

	"peerlink/identity"
)

// doorway exists on systems that tell which process is at the other end of a socket.
type doorway struct{ net.Listener }

func (d *doorway) path() string { return "" }

func selfUID() int { return -1 }

func defaultDir() string { return "" }

var errSystem = fmt.Errorf("local sockets on %s: %w", runtime.GOOS, errors.ErrUnsupported)

func openDoorway(context.Context, Config) (*doorway, error) { return nil, errSystem }

func (c Config) find(context.Context, identity.DeviceID, string) (net.Conn, string, error) {
	return nil, "", errSystem
}

func (c Config) devices() ([]Device, error) { return nil, errSystem }

func peerCreds(net.Conn) (creds, error) { return creds{}, errSystem }
