package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"peerlink/identity"
	"peerlink/internal/packed"
)

const (
	// Protocol is the application protocol (ALPN) of a request within TLS.
	Protocol = "peerlink-pass/1"
	// MaxUsername bounds a user name and a password, in bytes.
	MaxUsername = 128

	version    = 1
	maxPass    = 1 << 10
	fetchLimit = 5 * time.Second
)

// Pass is what a device needs for a relay.
type Pass struct {
	Username, Password string
	Expires            time.Time
}

// ErrNoRelay is matched by Fetch's error when there is a node, but it does not
// relay for this device.
var ErrNoRelay = errors.New("the node does not relay for this device")

// ErrFull is matched by Fetch's error when the node has no room for this device
// now, and may have some later.
var ErrFull = errors.New("the relay is full: try again later, or use another one")

// Reason is why a node gives no credentials. The zero value is none.
type Reason uint8

// The reasons.
const (
	Full        Reason = iota + 1 // no place is free for the device, its network or in all
	MembersOnly                   // the node relays for other devices
	Busy                          // the device, or its network, has asked too often
)

// reasons are the errors that Fetch makes of them.
var reasons = map[Reason]error{
	Full:        ErrFull,
	MembersOnly: fmt.Errorf("%w: it relays only for devices that its owner has named", ErrNoRelay),
	Busy:        fmt.Errorf("%w (too many devices of this network have asked it)", ErrFull),
}

// Encode is a node's answer with credentials.
func (p Pass) Encode() ([]byte, error) {
	return packed.Pack(uint8(version), p.Username, p.Password, uint64(p.Expires.UnixMilli()))
}

// Encode is a node's answer without credentials.
func (r Reason) Encode() ([]byte, error) { return packed.Pack(uint8(0), uint8(r)) }

// Fetch asks the node at addr (HOST:PORT) for credentials. It blocks until they
// are here, 5 s at most. The node must hold the private key of node, and learns
// the device's id; nobody on the way does.
func Fetch(ctx context.Context, addr string, node ed25519.PublicKey, me *identity.Identity) (Pass, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	p, err := fetch(ctx, addr, node, me)
	if err != nil {
		return Pass{}, fmt.Errorf("relay: get credentials from %s: %w", addr, err)
	}
	return p, nil
}

func fetch(ctx context.Context, addr string, node ed25519.PublicKey, me *identity.Identity) (Pass, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return Pass{}, err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{Protocol}, Certificates: []tls.Certificate{me.Certificate()},
		// There is no authority to ask: the key itself is known.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			key, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
			switch {
			case !ok || !bytes.Equal(key, node):
				return errors.New("another node than the multiaddress names is there")
			case cs.NegotiatedProtocol != Protocol:
				return ErrNoRelay
			}
			return nil
		},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return Pass{}, err
	}
	b, err := io.ReadAll(io.LimitReader(conn, maxPass+1))
	if err != nil {
		return Pass{}, err
	}
	return decodePass(b)
}

// decodePass reads a node's answer; an empty one says no.
func decodePass(b []byte) (Pass, error) {
	switch {
	case len(b) == 0:
		return Pass{}, ErrNoRelay
	case len(b) > maxPass:
		return Pass{}, fmt.Errorf("an answer of more than %d bytes", maxPass)
	}
	f := packed.NewFields(b, 4)
	switch v := f.Uint(255); {
	case f.Err() != nil || v == version:
	case v == 0:
		return Pass{}, refused(f)
	default:
		f.Fail(fmt.Errorf("an answer of version %d", v))
	}
	p := Pass{Username: f.String(MaxUsername), Password: f.String(MaxUsername)}
	p.Expires = time.UnixMilli(int64(f.Uint(1 << 53)))
	if p.Username == "" || p.Password == "" {
		f.Fail(errors.New("empty credentials"))
	}
	if err := f.Err(); err != nil { // what follows is a later version's
		return Pass{}, err
	}
	return p, nil
}

// refused reads why there are no credentials.
func refused(f *packed.Fields) error {
	why, known := reasons[Reason(f.Uint(255))]
	switch {
	case f.Err() != nil:
		return f.Err()
	case !known: // a later version's
		return ErrNoRelay
	}
	return why
}
