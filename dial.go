package peerlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"peerlink/identity"
)

var errAddress = errors.New("want peer://DEVICEID/URI, SCHEME+peer://DEVICEID or DEVICEID, with no port but :80")

// Dial is ConnectDevice with no options, as a net.Conn: on failure the conn is
// nil, so that the call can be returned where a net.Conn is wanted.
func (m *ConnectionManager) Dial(ctx context.Context, peer identity.DeviceID, uri string) (net.Conn, error) {
	c, err := m.ConnectDevice(ctx, peer, uri, ConnectOptions{})
	if err != nil {
		return nil, err // and not a nil *channel.Socket in an interface
	}
	return c, nil
}

// DialContext is Dial with the device and the URI in one text, and has the
// signature of net.Dialer's method: it serves as http.Transport.DialContext, and
// wherever else a library lets its caller dial. The network is not looked at, as
// such libraries say "tcp". The address is one of
//
//	peer://DEVICEID/URI          the channel URI, as it stands there
//	SCHEME+peer://DEVICEID/PATH  the channel SCHEME://DEVICEID/PATH; /PATH may be missing
//	DEVICEID, DEVICEID:80        the same as http+peer://DEVICEID
//
// so "http+peer://DEVICEID" is what Transport dials, and DEVICEID:80 is what HTTP
// libraries make of http://DEVICEID. Nothing in an address is unescaped. The error
// of another text says what is wanted; other errors are ConnectDevice's.
func (m *ConnectionManager) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return m.DialWith(ConnectOptions{})(ctx, network, addr)
}

// DialWith returns DialContext with options for each of its calls, such as the
// carriers to use. So libraries dial over chosen carriers: as the DialContext of an
// http.Transport of the program's own, it fetches http://DEVICEID/path over them.
// The program closes that transport's idle connections, as it has made them. What
// is returned may be called concurrently.
func (m *ConnectionManager) DialWith(opts ConnectOptions) func(ctx context.Context, network, addr string) (net.Conn, error) {
	opts.Carriers = slices.Clone(opts.Carriers)
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		device, uri, err := parseAddress(addr)
		if err != nil {
			return nil, fmt.Errorf("peerlink: dial %.200q: %w", addr, err)
		}
		c, err := m.ConnectDevice(ctx, device, uri, opts)
		if err != nil {
			return nil, err // and not a nil *channel.Socket in an interface
		}
		return c, nil
	}
}

// parseAddress reads an address of DialContext.
func parseAddress(addr string) (device identity.DeviceID, uri string, err error) {
	scheme, rest, isURL := strings.Cut(addr, "://")
	host, path, _ := strings.Cut(rest, "/")
	if !isURL {
		host = strings.TrimSuffix(addr, ":80") // the port that HTTP libraries add
		scheme, rest = "http+peer", host
	}
	base, named := strings.CutSuffix(scheme, "+peer")
	if device, err = identity.ParseDeviceID(host); err != nil {
		return device, "", fmt.Errorf("%w; %w", errAddress, err)
	}
	switch {
	case named && base != "":
		return device, base + "://" + device.String() + rest[len(host):], nil
	case scheme == "peer" && path != "":
		return device, path, nil
	}
	return device, "", errAddress
}
